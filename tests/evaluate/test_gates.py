"""Bounds beside measured values."""

from __future__ import annotations

import math
from typing import Any

import pytest

from effc.diagnostics import PolicyError
from effc.evaluate.gates import badness, check_gates, describe, excess
from effc.spec.schema import QualitySpec

MEASURED: dict[str, Any] = {
    "kl": {"mean": 0.04, "stderr": 0.01, "max": 0.9},
    "perplexity": {"original": 9.0, "rewritten": 9.9, "ratio": 1.1, "ratio_stderr": 0.02},
    "top1": {"mean": 0.9, "stderr": None},
    "time": {
        "prefill": {"ratio": 3.0, "spread": [2.0, 4.0]},
        "decode": {"ratio": 0.8, "spread": [0.7, 1.2]},
    },
}


@pytest.mark.parametrize(
    ("bound", "value", "just_held", "just_broken"),
    (
        ("max_kl", 0.04, 0.04, 0.0399),
        ("max_perplexity_ratio", 1.1, 1.1, 1.099),
        ("min_top1", 0.9, 0.9, 0.901),
        ("max_time_ratio", 0.8, 0.8, 0.799),
    ),
)
def test_a_bound_may_be_reached_but_not_passed(
    bound: str, value: float, just_held: float, just_broken: float
) -> None:
    for limit, held in ((just_held, True), (just_broken, False)):
        (gate,) = check_gates(QualitySpec(**{bound: limit}), MEASURED)
        assert (gate["name"], gate["bound"], gate["value"]) == (bound, limit, value)
        assert gate["held"] is held
        assert (excess([gate]) == 0) is held


def test_errors_stand_beside_values() -> None:
    quality = QualitySpec(max_kl=0.02, max_perplexity_ratio=2.0, min_top1=0.95, max_time_ratio=1.0)
    assert [describe(gate) for gate in check_gates(quality, MEASURED)] == [
        "max_kl: 0.04 ± 0.01, bound: at most 0.02, broken",
        "max_perplexity_ratio: 1.1 ± 0.02, bound: at most 2, held",
        "min_top1: 0.9, bound: at least 0.95, broken",
        "max_time_ratio: 0.8 (0.7 to 1.2), bound: at most 1, held",
    ]


def test_no_bounds_are_no_gates() -> None:
    assert check_gates(None, MEASURED) == check_gates(QualitySpec(), MEASURED) == []


def test_calls_are_timed_where_nothing_is_decoded() -> None:
    time = {"call": {"ratio": 1.5, "spread": [1.0, 2.0]}}
    (gate,) = check_gates(QualitySpec(max_time_ratio=1.0), {"time": time})
    assert (gate["value"], gate["held"]) == (1.5, False)


def test_what_is_no_number_holds_nothing() -> None:
    measured = {"kl": {"mean": None, "stderr": None}}
    (gate,) = check_gates(QualitySpec(max_kl=1e9), measured)
    assert not gate["held"]
    assert excess([gate]) == badness(gate) == math.inf
    assert describe(gate) == "max_kl: not a number, bound: at most 1e+09, broken"


@pytest.mark.parametrize("measured", ({}, {"time": None}))
def test_a_bound_on_what_was_not_measured_is_refused(measured: dict[str, Any]) -> None:
    with pytest.raises(PolicyError, match="max_time_ratio is bounded and was not measured"):
        check_gates(QualitySpec(max_time_ratio=1.0), measured)


def test_excess_is_relative_to_the_bound_and_adds_up() -> None:
    quality = QualitySpec(max_kl=0.02, min_top1=0.99)
    gates = check_gates(quality, MEASURED)
    assert excess(gates) == pytest.approx(0.02 / 0.02 + 0.09 / 0.99)
    (gate,) = check_gates(QualitySpec(max_kl=0.0), MEASURED)
    assert excess([gate]) == pytest.approx(0.04)


def test_more_is_worse() -> None:
    quality = QualitySpec(max_kl=1.0, min_top1=0.5)
    kl, top1 = check_gates(quality, MEASURED)
    assert (badness(kl), badness(top1)) == (0.04, -0.9)
