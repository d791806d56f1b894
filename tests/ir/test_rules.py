"""Rewrite rules: rounds, near misses, refusals by `check`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
from torch import fx

from effc.diagnostics import PassError
from effc.ir.journal import Journal, NearMiss
from effc.ir.passbase import PassStage
from effc.ir.pattern import Call, Match, Var
from effc.ir.program import Program
from effc.ir.rewriter import GraphRewriter
from effc.ir.rules import RewriteRule, RulePass
from tests.ir.graphs import aten, program_of


class CancelNegations(RewriteRule):
    """neg(neg(x)) is x."""

    name = "cancel-negations"
    patterns = (Call(("aten.neg.default",), (Call(("aten.neg.default",), (Var("x"),)),)),)

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        return found["x"]


class SinkNegation(RewriteRule):
    """sin(neg(x)) is neg(sin(x)): feeds the rule above, which stands before it."""

    name = "sink-negation"
    patterns = (Call(("aten.sin.default",), (Call(("aten.neg.default",), (Var("x"),)),)),)

    def check(self, found: Match, root: fx.Node) -> str:
        return "the input stays" if found["x"].name == "y" else ""

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        inner = rewriter.call(aten.sin.default, found["x"])
        return rewriter.call(aten.neg.default, inner)


class Restless(RewriteRule):
    """Replaces every sine by a sine."""

    name = "restless"
    patterns = (Call(("aten.sin.default",), (Var("x"),)),)

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        return rewriter.call(aten.sin.default, found["x"])


@dataclass(frozen=True)
class Simplify(RulePass):
    """Both rules, until nothing changes."""

    name: ClassVar[str] = "simplify"
    stage: ClassVar[PassStage] = PassStage.NORMALIZE
    rules: ClassVar[tuple[RewriteRule, ...]] = (CancelNegations(), SinkNegation())
    near: ClassVar[int] = 1


@dataclass(frozen=True)
class Endless(RulePass):
    """Never done."""

    name: ClassVar[str] = "endless"
    stage: ClassVar[PassStage] = PassStage.NORMALIZE
    rules: ClassVar[tuple[RewriteRule, ...]] = (Restless(),)


def tower(height: int) -> Program:
    """neg(sin(neg(sin(... x))))"""

    def build(call, n):  # noqa: ANN001, ANN202
        node = n["x"]
        for _ in range(height):
            node = call(aten.neg.default, call(aten.sin.default, node))
        return node

    return program_of(build)


@pytest.mark.parametrize("height", range(6))
def test_rules_run_until_nothing_changes(height: int) -> None:
    """Every second negation cancels; what is left is an odd function's sign."""
    program = tower(height)
    Simplify()(program, Journal())
    targets = [str(node.target) for _, node in program.nodes() if node.op == "call_function"]
    expected = ["aten.sin.default"] * height + ["aten.neg.default"] * (height % 2)
    assert sorted(targets) == sorted(expected)
    assert not Simplify()(program, Journal()).modified


def test_rules_without_end_are_caught() -> None:
    with pytest.raises(PassError, match="E0404.*pass 'endless' still finds work after 20 rounds"):
        Endless()(tower(1), Journal())


def test_check_and_pattern_give_reasons() -> None:
    def build(call, n):  # noqa: ANN001, ANN202
        kept = call(aten.sin.default, call(aten.neg.default, n["y"]))
        return kept, call(aten.sin.default, call(aten.exp.default, n["x"]))

    program, journal = program_of(build, "xy"), Journal()
    result = Simplify()(program, journal)
    assert not result.modified and not result.outcomes
    assert journal.misses == [
        NearMiss("cancel-negations", "forward", "neg", "found placeholder, not aten.neg.default"),
        NearMiss("sink-negation", "forward", "sin", "the input stays"),
        NearMiss(
            "sink-negation", "forward", "sin_1", "found aten.exp.default, not aten.neg.default"
        ),
    ]
