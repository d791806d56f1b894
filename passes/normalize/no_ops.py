"""Remove what does nothing.

Before:
    a = aten.to.dtype(x, float32)            # x is float32 already
    b = aten.slice.Tensor(a, 1, 0, INT_MAX)
    c = aten.dropout(b, 0.0, False)
After:
    (all users read x)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx

from effc.ir.journal import Journal
from effc.ir.passbase import Outcome, Pass, PassStage
from effc.ir.pattern import op_name
from effc.ir.program import Program

# Operators that return their first argument unchanged when type and shape stay the same.
_IDENTITIES = {
    "aten.to.dtype",
    "aten.to.device",
    "aten.to.dtype_layout",
    "aten._to_copy.default",
    "aten.type_as.default",
    "aten.alias.default",
    "aten.detach.default",
    "aten.lift_fresh_copy.default",
    "aten.slice.Tensor",
    "aten.expand.default",
    "aten.view.default",
    "aten.reshape.default",
}
_INFERENCE_IDENTITIES = {"aten.dropout.default", "aten.feature_dropout.default"}


@dataclass(frozen=True)
class RemoveNoOps(Pass):
    """Skip conversions, slices, views and dropouts that change nothing."""

    name: ClassVar[str] = "remove-no-ops"
    stage: ClassVar[PassStage] = PassStage.NORMALIZE

    def call(self, program: Program, journal: Journal) -> list[Outcome]:
        """One outcome per stage in which something was removed."""
        outcomes = []
        for stage in program.stages.values():
            rewriter = self.rewriter(program, stage, journal)
            idle = [node for node in stage.graph.nodes if is_no_op(node)]
            for node in idle:
                if not node._erased:
                    rewriter.replace(node, node.args[0])  # type: ignore[arg-type]
            if idle:
                outcomes.append(Outcome(f"{stage.name}: {len(idle)} nodes", "applied"))
        return outcomes


def is_no_op(node: fx.Node) -> bool:
    """Whether a node returns its first argument."""
    name = op_name(node)
    if name in _INFERENCE_IDENTITIES:
        return not node.args[2]
    if name not in _IDENTITIES or not isinstance(node.args[0], fx.Node):
        return False
    before, after = node.args[0].meta.get("val"), node.meta.get("val")
    if not isinstance(before, torch.Tensor) or not isinstance(after, torch.Tensor):
        return False
    return (
        before.dtype == after.dtype
        and before.device == after.device
        and _same_sizes(before.shape, after.shape)
    )


def _same_sizes(a: torch.Size, b: torch.Size) -> bool:
    # Symbolic sizes are compared as expressions: `==` on them could add a guard.
    return [str(size) for size in a] == [str(size) for size in b]
