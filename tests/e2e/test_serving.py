"""Sampling and stopping as a server needs them, on the trained reference model."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

import effc
from effc.api import CompiledModel

MODEL = Path(__file__).parents[2] / "examples/zoo/lm/checkpoint"
PROMPTS = ("def read(path):\n", "import os\n\n\ndef", "class", "    return self.", "x = [")
SAMPLING = {"do_sample": True, "temperature": 0.8, "min_p": 0.05, "repetition_penalty": 1.1}


@cache
def compiled() -> CompiledModel:
    return effc.optimize(MODEL, {"target": {"dtype": "float32"}})


def batch(prompts: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask, padded at the left."""
    rows = [compiled().tokenizer.encode(text).ids for text in prompts]
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def sampled(prompts: tuple[str, ...], seeds: list[int]) -> list[list[int]]:
    ids, mask = batch(prompts)
    result = compiled().generate_result(
        ids, attention_mask=mask, max_new_tokens=24, seed=seeds, **SAMPLING
    )
    return result.tokens


def test_a_request_with_its_own_seed_gets_the_same_answer_in_any_batch() -> None:
    seeds = [11, 3, 3, 40, 7]
    alone = [sampled((p,), [s])[0] for p, s in zip(PROMPTS, seeds, strict=True)]
    assert len({tuple(answer) for answer in alone}) == len(PROMPTS)
    assert sampled(PROMPTS, seeds) == alone
    assert sampled(PROMPTS[::-1], seeds[::-1]) == alone[::-1]
    assert sampled(PROMPTS[1:3], seeds[1:3]) == alone[1:3]


@pytest.mark.parametrize("length", [1, 2, 5, 9])
def test_stop_strings_of_any_length_end_greedy_answers_at_once(length: int) -> None:
    ids, _ = batch(PROMPTS[:1])
    decode = compiled().tokenizer.decode
    plain = compiled().generate_result(ids, max_new_tokens=40).tokens[0]
    text = decode(plain)
    for start in range(0, len(text) - length, 7):
        stop = text[start : start + length]
        first = next(n for n in range(1, 41) if stop in decode(plain[:n]))
        result = compiled().generate_result(ids, max_new_tokens=40, stop_strings=stop)
        assert result.tokens[0] == plain[:first], repr(stop)
        assert result.finish_reasons == ["stop"]


class Recorder:
    """A streamer that keeps what it is given."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.ended = False

    def put(self, value: torch.Tensor) -> None:
        self.tokens += value.flatten().tolist()

    def end(self) -> None:
        self.ended = True


def test_the_streamer_sees_what_is_returned() -> None:
    ids, _ = batch(PROMPTS[:1])
    recorder = Recorder()
    out = compiled().generate(ids, max_new_tokens=12, seed=5, streamer=recorder, **SAMPLING)
    assert recorder.tokens == out[0].tolist()
    assert recorder.ended
