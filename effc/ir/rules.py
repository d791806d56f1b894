"""Rewrite rules: pattern, check, rewrite; stateless, with a reason for every non-match."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import fx

from effc.diagnostics import PassError
from effc.ir.journal import Journal, NearMiss
from effc.ir.passbase import Outcome, Pass
from effc.ir.pattern import Match, match
from effc.ir.program import Program
from effc.ir.rewriter import GraphRewriter

# Rules that feed on one another's results settle in a few rounds, or never.
_ROUNDS = 20


@dataclass(frozen=True)
class Lookalike:
    """A form that people take for what a rule rewrites, and that means something else.

    Attributes:
        pattern: the form.
        reason: why it is left alone, and what would be rewritten.
        check: whether a match is one after all.
    """

    pattern: Any
    reason: str
    check: Callable[[Match], bool] = lambda found: True


class RewriteRule:
    """One local rewrite.

    Class attributes:
        name: kebab-case.
        patterns: alternatives; the first that matches and passes `check` is rewritten.
        lookalikes: always reported as near misses, however little of a pattern they match.
    """

    name: ClassVar[str]
    patterns: ClassVar[tuple[Any, ...]]
    lookalikes: ClassVar[tuple[Lookalike, ...]] = ()

    def check(self, found: Match, root: fx.Node) -> str:
        """Why the match must not be rewritten; an empty text allows it."""
        return ""

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """Build the replacement (new nodes go in front of the root) and return it."""
        raise NotImplementedError


@dataclass(frozen=True)
class RulePass(Pass):
    """A pass that applies rules everywhere until nothing changes.

    Class attributes:
        rules: tried in order at every node.
        near: a failed match that got at least this deep is worth reporting.
    """

    rules: ClassVar[tuple[RewriteRule, ...]]
    near: ClassVar[int] = 3

    def call(self, program: Program, journal: Journal) -> list[Outcome]:
        """One outcome per rewritten place; near misses go to the journal.

        Raises:
            PassError: E0404, the rules make work for themselves without end.
        """
        outcomes = []
        for stage in program.stages.values():
            rewriter = self.rewriter(program, stage, journal)
            for _ in range(_ROUNDS):
                applied, misses = self._round(rewriter)
                outcomes += applied
                if not applied:
                    break
            else:
                raise PassError(
                    "E0404",
                    f"pass {self.name!r} still finds work after {_ROUNDS} rounds: "
                    f"{applied[0].place}",
                )
            for miss in misses:
                journal.miss(miss)
        return outcomes

    def _round(self, rewriter: GraphRewriter) -> tuple[list[Outcome], list[NearMiss]]:
        outcomes: list[Outcome] = []
        misses: list[NearMiss] = []
        for rule in self.rules:
            _sweep(rule, rewriter, self.near, outcomes, misses)
        return outcomes, misses


def _sweep(
    rule: RewriteRule,
    rewriter: GraphRewriter,
    near: int,
    outcomes: list[Outcome],
    misses: list[NearMiss],
) -> None:
    """Apply one rule at every node once."""
    for root in list(rewriter.graph.nodes):
        typed = root.meta.get("val") is not None
        if root.op != "call_function" or root._erased or not typed:
            continue
        found, reason = _find(rule, root)
        known = _lookalike(rule, root) if reason else ""
        if not reason:
            place = rewriter.graph_place(root)
            with rewriter.before(root):
                new = rule.rewrite(rewriter, found, root)
            rewriter.replace(root, new)
            outcomes.append(Outcome(place, "applied"))
        elif known or found.depth >= near:
            misses.append(NearMiss(rule.name, rewriter.stage.name, root.name, known or reason))


def _lookalike(rule: RewriteRule, root: fx.Node) -> str:
    for known in rule.lookalikes:
        found = match(known.pattern, root)
        if found and known.check(found):
            return known.reason
    return ""


def _find(rule: RewriteRule, root: fx.Node) -> tuple[Match, str]:
    best = Match(reason="nothing matched")
    for pattern in rule.patterns:
        found = match(pattern, root)
        if found:
            reason = rule.check(found, root)
            if not reason:
                return found, ""
            return found, reason
        if found.depth >= best.depth:
            best = found
    return best, best.reason
