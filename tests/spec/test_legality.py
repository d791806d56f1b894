"""The legality table is complete, symmetric, and says why."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from effc.diagnostics import PolicyError
from effc.passes.registry import METHODS
from effc.spec.legality import (
    check_pairs,
    check_plan,
    features,
    lookup,
    matrix_rows,
    reasons,
)
from effc.spec.legality_table import ASPECTS, FEATURES, PAIRS
from effc.spec.plan import Plan, RuleMatch, Step
from effc.spec.schema import TargetSpec

REGISTERED = {f"{table}:{name}" for table, methods in METHODS.items() for name in methods}


def step(aspect: str, method: str, **options: Any) -> Step:
    """A step of the first rule of its table at some site."""
    site: Any = SimpleNamespace(name="site", stage="forward", node="n", kind="linear", layer=0)
    return Step(aspect, method, options, site, aspect, 0)


def match(table: str) -> RuleMatch:
    """The account of that rule."""
    return RuleMatch(table, 0, "linear", {}, None, "policy.toml:3:1", 1, 1, 0, None)


def test_every_registered_method_and_target_has_a_row() -> None:
    methods = {name.partition(" ")[0] for name in FEATURES}
    assert methods == REGISTERED | {"device:cpu", "device:cuda"}


EVERYTHING = [*FEATURES, *(f"{aspect}:*" for aspect in ASPECTS)]


@pytest.mark.parametrize(("first", "second"), list(itertools.product(EVERYTHING, repeat=2)))
def test_every_pair_is_decided_with_a_reason(first: str, second: str) -> None:
    pair = lookup(first, second)
    assert pair == lookup(second, first)
    assert len(pair.reason) > 20 and not pair.reason.endswith(".")


def test_no_pair_is_stated_twice() -> None:
    stated = [frozenset((pair.first, pair.second)) for pair in PAIRS]
    assert len(stated) == len(set(stated))


def test_what_is_stated_can_be_found() -> None:
    for pair in PAIRS:
        assert lookup(pair.first, pair.second) is pair


def test_methods_of_other_packages_fall_under_their_aspect() -> None:
    assert lookup("kv:mine", "store:int8") is lookup("kv:*", "store:*")
    assert lookup("quantize:mine", "device:cuda") is lookup("quantize:*", "device:*")
    assert lookup("quantize:rtn bits=4", "device:cuda") is lookup("quantize:rtn", "device:cuda")
    with pytest.raises(KeyError, match="says nothing about wine:red"):
        lookup("wine:red", "device:cpu")


def test_a_step_has_the_features_of_its_options() -> None:
    assert features(step("quantize", "rtn", bits=4)) == ("quantize:rtn",)
    assert features(step("quantize", "rtn", activations="int8")) == (
        "quantize:rtn",
        "quantize:rtn activations=int8",
    )


def test_a_refused_pair_names_rule_reason_and_remedy() -> None:
    chosen = Plan(
        steps=(step("quantize", "rtn", activations="int8"),), matches=(match("quantize"),)
    )
    check_plan(chosen, TargetSpec(device="cpu"))
    with pytest.raises(PolicyError) as caught:
        check_plan(chosen, TargetSpec(device="cuda:sm90"))
    assert caught.value.code == "E0211"
    assert caught.value.render() == (
        "policy.toml:3:1: error[E0211]: quantize:rtn activations=int8 and device:cuda do not go "
        'together: the GPU kernel multiplies inputs in their own type (activations = "source"); '
        "only the reference rounds them to int8\n"
        "help: leave one of the two out, or set target.allow_reference = true to run the slow "
        "reference"
    )


def test_a_missing_kernel_is_forgiven_on_request_and_a_contradiction_is_not() -> None:
    check_pairs({"quantize:rtn activations=int8": None, "device:cuda": None}, allow_reference=True)
    for allowed in (False, True):
        with pytest.raises(PolicyError, match=r"one \[stream\]"):
            check_pairs({"stream:host": None, "stream:disk": None}, allow_reference=allowed)


def test_further_features_take_part() -> None:
    chosen = Plan(steps=(step("quantize", "rtn"),), matches=(match("quantize"),))
    check_plan(chosen, TargetSpec(), also=("draft:exact", "stream:disk"))
    with pytest.raises(PolicyError, match="stream:host and device:cpu do not go together"):
        check_plan(chosen, TargetSpec(), also=("stream:host",))


def test_the_matrix_is_square_symmetric_and_numbered() -> None:
    header, rows = matrix_rows(("kv:mine",))
    assert header[2:] == [row[0] for row in rows]
    assert [row[1] for row in rows] == [*FEATURES, "kv:mine"]
    cells = [row[2:] for row in rows]
    assert cells == [list(column) for column in zip(*cells, strict=True)]
    assert {cell for row in cells for cell in row} == {"yes", "slow", "-"}


def test_reasons_cover_the_matrix_refusals_first() -> None:
    listed = reasons()
    devices = [name for name in FEATURES if name.startswith("device:")]
    pairs = len(FEATURES) * (len(FEATURES) + 1) // 2 - len(devices) * (len(devices) + 1) // 2
    assert len(listed) == pairs
    verdicts = [reason.partition(":")[0] for _, _, reason in listed]
    assert verdicts == sorted(verdicts)
