"""Paired timings, with clocks that tests can read."""

from __future__ import annotations

import random

import pytest

from effc.evaluate.subject import Subject
from effc.evaluate.timing import Run, Spread, alone, generation_run, paired
from tests.evaluate.models import canonical_decoder, lowered


def scripted(name: str, times: list[float], order: list[str]) -> Run:
    """A run that takes the next of these times, and notes that it was its turn."""
    left = iter(times)

    def run() -> dict[str, float]:
        order.append(name)
        return {"decode": next(left)}

    return run


def test_ratios_are_formed_within_a_round() -> None:
    """The machine slows down threefold halfway; the ratio of the pairs does not notice."""
    original = [9.0, 1.0, 1.0, 1.0, 3.0, 3.0, 3.0]
    rewritten = [9.0, 0.5, 0.5, 0.5, 1.5, 1.5, 1.5]
    order: list[str] = []
    found = paired(scripted("a", original, order), scripted("b", rewritten, order), rounds=6)
    assert found == {
        "decode": {
            "original_s": 2.0,
            "rewritten_s": 1.0,
            "ratio": 0.5,
            "spread": [0.5, 0.5],
            "rounds": 6,
        }
    }


def test_models_take_turns_in_both_orders() -> None:
    order: list[str] = []
    paired(scripted("a", [1.0] * 41, order), scripted("b", [1.0] * 41, order), rounds=40)
    rounds = ["".join(order[i : i + 2]) for i in range(0, 82, 2)]
    assert set(rounds) == {"ab", "ba"}
    assert 10 < rounds.count("ab") < 31


def test_the_first_round_does_not_count() -> None:
    order: list[str] = []
    found = paired(scripted("a", [50.0, 1.0], order), scripted("b", [1.0, 2.0], order), rounds=1)
    assert found["decode"]["ratio"] == 2.0
    assert alone(scripted("a", [50.0, 1.0, 2.0, 3.0], order), rounds=3)["decode"].median == 2.0


def test_spread_is_the_range_without_the_outer_tenths() -> None:
    values = [float(n) for n in range(11)]
    random.Random(0).shuffle(values)
    assert Spread.of(values) == Spread(5.0, 1.0, 9.0)


@pytest.mark.parametrize("new", (1, 5))
def test_a_run_does_the_work_that_it_times(new: int) -> None:
    subject = Subject(lowered(canonical_decoder()))
    times = generation_run(subject, [3, 4, 5], new)()
    assert subject.calls == {"decode": 1 + new}
    assert times["prefill"] > 0 and times["decode"] > 0
