"""Times that can be compared: two models take turns, so that both see the same machine.

A round runs both once, in an order drawn anew; the first round of all warms up and does not count.
Ratios are formed within a round. Decoding is fed the same tokens whatever a model says, so both do
the same work; choosing a token is not part of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import torch

from effc.evaluate.estimates import quantile
from effc.evaluate.subject import Subject

ROUNDS = 10
NEW_TOKENS = 32
SEED = 20

Run = Callable[[], dict[str, float]]
"""Does the work once and tells how many seconds each part of it took."""


@dataclass(frozen=True)
class Spread:
    """The median of repeated times, and the 10 % and 90 % quantiles around it."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """The spread of some values."""
        return Spread(median(values), quantile(values, 0.1), quantile(values, 0.9))


def generation_run(subject: Subject, prompt: Sequence[int], new_tokens: int) -> Run:
    """Prefill of a prompt, then decoding: seconds, and seconds per token."""

    def run() -> dict[str, float]:
        session = subject.session(1, len(prompt) + new_tokens)
        started = _now(subject)
        session.advance([prompt])
        filled = _now(subject)
        for step in range(new_tokens):
            session.advance([[prompt[step % len(prompt)]]])
        ended = _now(subject)
        return {"prefill": filled - started, "decode": (ended - filled) / new_tokens}

    return run


def call_run(subject: Subject, stage: str, inputs: Mapping[str, Any]) -> Run:
    """One call of a stage: seconds."""

    def run() -> dict[str, float]:
        started = _now(subject)
        subject(stage, inputs)
        return {"call": _now(subject) - started}

    return run


def alone(run: Run, *, rounds: int = ROUNDS) -> dict[str, Spread]:
    """Times of one model after a round of warm-up."""
    run()
    rows = [run() for _ in range(rounds)]
    return {part: Spread.of([row[part] for row in rows]) for part in rows[0]}


def paired(original: Run, rewritten: Run, *, rounds: int = ROUNDS) -> dict[str, dict[str, Any]]:
    """Times of two models that take turns.

    Returns:
        The entry "time" of a quality report. Per part of the work: the medians of both in
        seconds, the median of the ratios rewritten / original, the 10 % and 90 % quantiles of
        those ratios, and the number of rounds.
    """
    order = random.Random(SEED)
    pairs = [_round(original, rewritten, order) for _ in range(1 + rounds)][1:]
    return {part: _compare([(a[part], b[part]) for a, b in pairs]) for part in pairs[0][0]}


def _round(
    original: Run, rewritten: Run, order: random.Random
) -> tuple[dict[str, float], dict[str, float]]:
    if order.random() < 0.5:
        first = original()
        return first, rewritten()
    second = rewritten()
    return original(), second


def _compare(times: Sequence[tuple[float, float]]) -> dict[str, Any]:
    ratio = Spread.of([rewritten / original for original, rewritten in times])
    return {
        "original_s": median(original for original, _ in times),
        "rewritten_s": median(rewritten for _, rewritten in times),
        "ratio": ratio.median,
        "spread": [ratio.low, ratio.high],
        "rounds": len(times),
    }


def _now(subject: Subject) -> float:
    """The time when all work so far is done."""
    if subject.program.device == "cuda":
        torch.cuda.synchronize()
    return perf_counter()
