"""Running other people's ONNX files in stock onnxruntime: logits, and greedy tokens with a cache.

Serves decoders with `past`/`present`, standard or with GroupQueryAttention, decoders without a
cache, and any model whose inputs have the usual names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

# Dtype by the name onnxruntime gives an input's type.
_DTYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}

Arrays = dict[str, np.ndarray]


def open_session(path: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """A session on the CPU as a user would open it, quiet, with so many threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True)
class Cache:
    """What a decoder keeps between two calls.

    Attributes:
        held: tokens seen so far.
        tensors: cache input -> keys or values [B, H_kv, S, D].
    """

    held: int
    tensors: Arrays


class Decoder:
    """A decoder in onnxruntime.

    Attributes:
        session: of the file.
        pairs: cache input -> the output that takes its place at the next call.
        builder: what genai_config.json beside the file says about it, else empty.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        self.session = open_session(path, threads)
        self._inputs = {spec.name: spec for spec in self.session.get_inputs()}
        outputs = [spec.name for spec in self.session.get_outputs()]
        self.pairs = cache_pairs(list(self._inputs), outputs)
        self.builder = builder_config(path.parent)

    def step(self, ids: np.ndarray, cache: Cache | None = None) -> tuple[np.ndarray, Cache]:
        """Logits [B, T, V] of new tokens [B, T] after the cached ones, and the cache after it."""
        cache = cache or self.empty_cache(len(ids))
        outputs = ["logits", *self.pairs.values()]
        results = self.session.run(outputs, self.feeds(ids, cache))
        results = dict(zip(outputs, results, strict=True))
        after = {name: results[output] for name, output in self.pairs.items()}
        held = cache.held + ids.shape[1] if self.pairs else 0
        return np.asarray(results["logits"], dtype=np.float32), Cache(held, after)

    def generate(self, ids: np.ndarray, count: int) -> np.ndarray:
        """The `count` tokens [B, count] that follow prompts [B, T], always the best one."""
        cache: Cache | None = None
        given, answers = ids, []
        for _ in range(count):
            logits, cache = self.step(given, cache)
            chosen = logits[:, -1].argmax(-1)[:, None]
            answers.append(chosen)
            ids = np.concatenate([ids, chosen], axis=1)
            given = chosen if self.pairs else ids
        return np.concatenate(answers, axis=1)

    def empty_cache(self, batch: int) -> Cache:
        """No tokens: tensors of length 0, or the buffer of a layer that slides by itself."""
        tensors = {}
        for name in self.pairs:
            spec = self._inputs[name]
            _, heads, length, width = spec.shape
            slides = "sliding" in str(length)
            length = self.builder["sliding_window"]["window_size"] if slides else 0
            width = width if isinstance(width, int) else self.builder["head_size"]
            tensors[name] = np.zeros([batch, heads, length, width], dtype=_DTYPES[spec.type])
        return Cache(0, tensors)

    def feeds(self, ids: np.ndarray, cache: Cache) -> Arrays:
        """Every input for new tokens [B, T] after the cached ones, in the order of the file.

        Raises:
            ValueError: the model wants something this loop knows nothing about.
        """
        batch, new = ids.shape
        positions = np.arange(cache.held, cache.held + new)
        known = {
            "input_ids": ids,
            "attention_mask": np.ones((batch, cache.held + new)),
            "position_ids": np.broadcast_to(positions, (batch, new)),
            "cache_position": positions,
            **cache.tensors,
        }
        if unknown := self._inputs.keys() - known.keys():
            raise ValueError(f"no value is known for the inputs {sorted(unknown)}")
        return {n: known[n].astype(_DTYPES[spec.type]) for n, spec in self._inputs.items()}


def cache_pairs(inputs: list[str], outputs: list[str]) -> dict[str, str]:
    """Which output continues which cache input, by name and, where names say nothing, by order.

    Raises:
        ValueError: as many past inputs as present outputs are expected.
    """
    past = [name for name in inputs if "past" in name]
    present = [name for name in outputs if "present" in name]
    if len(past) != len(present):
        raise ValueError(f"{len(past)} past inputs, {len(present)} present outputs")
    renamed = [name.replace("past_key_values", "present") for name in past]
    return dict(zip(past, renamed if set(renamed) == set(present) else present, strict=True))


def builder_config(folder: Path) -> dict[str, Any]:
    """What genai_config.json says about the decoder; empty if there is none."""
    file = folder / "genai_config.json"
    if not file.is_file():
        return {}
    return json.loads(file.read_text(encoding="utf-8"))["model"]["decoder"]


def run(path: Path, feeds: Mapping[str, np.ndarray]) -> Arrays:
    """Every output of a model by name."""
    session = open_session(path)
    names = [spec.name for spec in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def example_feeds(path: Path, *, tokens: int, vocabulary: int, image: int, seed: int) -> Arrays:
    """Random values for the inputs of an encoder or vision tower: batches of two.

    Args:
        path: of the model.
        tokens: per row.
        vocabulary: ids are below it, and above 4.
        image: height and width where the file leaves them free.
        seed: of the values.
    """
    random = np.random.default_rng(seed)
    feeds: Arrays = {}
    for spec in open_session(path).get_inputs():
        dtype = _DTYPES[spec.type]
        if spec.name == "pixel_values":
            free = [2, 3, image, image]
            shape = [d if isinstance(d, int) else f for d, f in zip(spec.shape, free, strict=True)]
            feeds[spec.name] = random.standard_normal(shape).astype(dtype)
        elif spec.name == "input_ids":
            feeds[spec.name] = random.integers(5, vocabulary, (2, tokens)).astype(dtype)
        elif spec.name == "attention_mask":
            lengths = np.array([[tokens], [tokens - 3]])
            feeds[spec.name] = (np.arange(tokens)[None] < lengths).astype(dtype)
        elif spec.name == "token_type_ids":
            feeds[spec.name] = random.integers(0, 2, (2, tokens)).astype(dtype)
        else:
            raise ValueError(f"no value is known for the input {spec.name}")
    return feeds
