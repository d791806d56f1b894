"""Erase what nobody reads.

Before:
    a = aten.cos.default(x)      # no users
    return (y,)
After:
    return (y,)

The capture leaves dead code behind; later passes do not, because the rewriter erases what only a
replaced node read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from effc.ir.journal import Journal
from effc.ir.passbase import Outcome, Pass, PassStage
from effc.ir.program import Program


@dataclass(frozen=True)
class RemoveDeadCode(Pass):
    """Erase nodes without users and without effects."""

    name: ClassVar[str] = "remove-dead-code"
    stage: ClassVar[PassStage] = PassStage.NORMALIZE

    def call(self, program: Program, journal: Journal) -> list[Outcome]:
        """One outcome per stage with dead nodes."""
        outcomes = []
        for stage in program.stages.values():
            rewriter = self.rewriter(program, stage, journal)
            before = len(stage.graph.nodes)
            rewriter.erase_unused()
            if count := before - len(stage.graph.nodes):
                outcomes.append(Outcome(f"{stage.name}: {count} nodes", "applied"))
        return outcomes
