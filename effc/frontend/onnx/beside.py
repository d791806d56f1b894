"""What the files beside an ONNX model say: context, special tokens, vocabulary, tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir

from effc.diagnostics import ModelError
from effc.frontend.base import CARRIED_FILES
from effc.frontend.onnx.importer import symbolic_shape

_LARGEST = 64 << 20
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")


def describe(source: Any) -> dict[str, Any]:
    """Fields of `ModelInfo` as far as the files beside a model know them."""
    if not isinstance(source, str | Path):
        return {}
    path = Path(source)
    folder = path if path.is_dir() else path.parent
    config, generation = _json(folder, "config.json"), _json(folder, "generation_config.json")
    genai = _json(folder, "genai_config.json").get("model", {})
    text = config.get("text_config", config)
    special = {**_special(text), **_special(genai), **_special(generation)}
    context = next((text[k] for k in _CONTEXT_KEYS if isinstance(text.get(k), int)), None)
    family = config.get("model_type") or genai.get("type") or "onnx"
    return {
        "family": str(family),
        "context": context or _whole(genai.get("context_length")),
        "vocabulary": _whole(text.get("vocab_size")) or _whole(genai.get("vocab_size")),
        "files": {n: folder / n for n in CARRIED_FILES if (folder / n).is_file()},
        **special,
    }


def image_sizes(graph: onnx_ir.Graph, source: Any) -> dict[str, int]:
    """Names of open sizes of an image input -> what the configuration says they are."""
    if not isinstance(source, str | Path):
        return {}
    path = Path(source)
    config = _json(path if path.is_dir() else path.parent, "config.json")
    vision = config.get("vision_config", config)
    size = vision.get("image_size")
    height, width = size if isinstance(size, list) and len(size) == 2 else (size, size)
    expected = (None, vision.get("num_channels"), height, width)
    found: dict[str, int] = {}
    for value in graph.inputs:
        if value.shape is None or value.shape.rank() != len(expected):
            continue
        for size, known in zip(symbolic_shape(value, str(value.name)) or (), expected, strict=True):
            if isinstance(size, str) and _whole(known):
                found[size] = known  # type: ignore[assignment]
    return found


def known(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that say something."""
    return {key: value for key, value in facts.items() if value not in (None, {}, ())}


def _special(config: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    eos = config.get("eos_token_id")
    ids = eos if isinstance(eos, list) else [eos]
    if all(isinstance(i, int) for i in ids):
        found["eos"] = tuple(ids)
    for key, name in (("bos_token_id", "bos"), ("pad_token_id", "pad")):
        if isinstance(config.get(key), int):
            found[name] = config[key]
    return found


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _json(folder: Path, name: str) -> dict[str, Any]:
    """An object from a file, empty when there is no file.

    Raises:
        ModelError: E0301 when it is no JSON object.
    """
    path = folder / name
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("it is too large")
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no object")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            "E0301",
            f"{name} beside the model cannot be read: {error}",
            where=str(path),
            help="repair the file, or take it away: the model alone can be compiled",
        ) from error
    return found
