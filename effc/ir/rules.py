"""Rewrite rules: pattern, check, rewrite; stateless, with a reason for every non-match."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import fx

from effc.diagnostics import PassError
from effc.ir.journal import Journal, NearMiss
from effc.ir.passbase import Outcome, Pass
from effc.ir.pattern import Match, match
from effc.ir.program import Program, Stage
from effc.ir.rewriter import GraphRewriter


class RewriteRule:
    """One local rewrite.

    Class attributes:
        name: kebab-case.
        patterns: alternatives; the first that matches and passes `check` is rewritten.
    """

    name: ClassVar[str]
    patterns: ClassVar[tuple[Any, ...]]

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
        """Sweep all stages; one outcome per rewritten place and per near miss."""
        outcomes = []
        for stage in program.stages.values():
            rewriter = self.rewriter(program, stage, journal)
            for rule in self.rules:
                outcomes += _sweep(rule, rewriter, stage, journal, self.near)
        return outcomes


def _sweep(
    rule: RewriteRule, rewriter: GraphRewriter, stage: Stage, journal: Journal, near: int
) -> list[Outcome]:
    outcomes = []
    budget = 4 * len(stage.graph.nodes)
    for root in list(stage.graph.nodes):
        if root.op != "call_function" or root._erased:
            continue
        found, reason = _find(rule, root)
        if not reason:
            budget -= 1
            if budget < 0:
                raise PassError("E0404", f"rule {rule.name!r} never comes to an end")
            place = rewriter.graph_place(root)
            with rewriter.before(root):
                new = rule.rewrite(rewriter, found, root)
            rewriter.replace(root, new)
            outcomes.append(Outcome(place, "applied"))
        elif found.depth >= near:
            journal.miss(NearMiss(rule.name, stage.name, root.name, reason))
    return outcomes


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
