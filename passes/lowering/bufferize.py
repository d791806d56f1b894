"""Bufferization: the cache is updated in place.

Before:
    w = effc.cache_write([k0], k, slots, "fp32")
    n = w[0]
    o = effc.attend(q, [n], ...)
    return (logits, lengths, n)
After:
    effc.cache_write_([k0], k, slots, "fp32")
    o = effc.attend(q, [k0], ...)
    return (logits, lengths)

Safe because nobody reads the old plane after the write; the verifier proves it on the result.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx

from effc.diagnostics import PassError
from effc.ir.journal import Journal
from effc.ir.passbase import Outcome, Pass, PassStage
from effc.ir.pattern import op_name
from effc.ir.program import Program, Stage
from effc.ir.rewriter import GraphRewriter

WRITE = "effc.cache_write.default"


@dataclass(frozen=True)
class Bufferize(Pass):
    """Replace functional cache writes by writes in place."""

    name: ClassVar[str] = "bufferize"
    stage: ClassVar[PassStage] = PassStage.LOWER

    def call(self, program: Program, journal: Journal) -> list[Outcome]:
        """One outcome per write."""
        outcomes = []
        for stage in program.stages.values():
            writes = [n for n in stage.graph.nodes if op_name(n) == WRITE]
            if writes:
                rewriter = self.rewriter(program, stage, journal)
                _drop_state_outputs(rewriter, stage, writes)
                outcomes += [_in_place(rewriter, write) for write in writes]
        return outcomes

    def ensures(self, program: Program) -> None:
        """No functional write is left."""
        for _, node in program.nodes():
            if op_name(node) == WRITE:
                raise PassError("E0404", f"{node.name} still copies the cache")


def _drop_state_outputs(rewriter: GraphRewriter, stage: Stage, writes: list[fx.Node]) -> None:
    planes = {str(plane.target) for write in writes for plane in write.args[0]}  # type: ignore[union-attr]
    rewriter.set_outputs({n: v for n, v in stage.results().items() if n not in planes})  # type: ignore[misc]


def _in_place(rewriter: GraphRewriter, write: fx.Node) -> Outcome:
    planes = list(write.args[0])  # type: ignore[arg-type]
    with rewriter.before(write):
        rewriter.call(torch.ops.effc.cache_write_.default, *write.args)
    for item in list(write.users):
        assert item.target is operator.getitem, "a list is only read item by item"
        rewriter.replace(item, planes[item.args[1]])  # type: ignore[index]
    return Outcome(rewriter.graph_place(planes[0]), "applied")
