"""Remove what does nothing.

Before:
    a = aten.to.dtype(x, float32)            # x is float32 already
    b = aten.slice.Tensor(a, 1, 0, INT_MAX)
    c = aten.dropout(b, 0.0, False)
    d = aten.cat.default([aten.mul.Tensor(c, 1.0)])
After:
    (all users read x)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import fx

from effc.ir.journal import Journal
from effc.ir.passbase import Outcome, Pass, PassStage
from effc.ir.pattern import op_name
from effc.ir.program import Program
from effc.passes.normalize.shapes import permutation, same_sizes

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
# Operators that return their first argument when the second is this number.
_NEUTRAL = {
    "aten.add.Tensor": 0,
    "aten.sub.Tensor": 0,
    "aten.mul.Tensor": 1,
    "aten.div.Tensor": 1,
    "aten.pow.Tensor_Scalar": 1,
}
_INFERENCE_IDENTITIES = {"aten.dropout.default", "aten.feature_dropout.default"}


@dataclass(frozen=True)
class RemoveNoOps(Pass):
    """Skip conversions, slices, views and dropouts that change nothing."""

    name: ClassVar[str] = "remove-no-ops"
    stage: ClassVar[PassStage] = PassStage.NORMALIZE
    after: ClassVar[tuple[str, ...]] = ("inline-scalars", "slices-of-splits")

    def call(self, program: Program, journal: Journal) -> list[Outcome]:
        """One outcome per stage in which something was removed."""
        outcomes = []
        for stage in program.stages.values():
            rewriter = self.rewriter(program, stage, journal)
            idle = [node for node in stage.graph.nodes if is_no_op(node)]
            for node in idle:
                if not node._erased:
                    rewriter.replace(node, _kept(node))
            if idle:
                outcomes.append(Outcome(f"{stage.name}: {len(idle)} nodes", "applied"))
        return outcomes


def is_no_op(node: fx.Node) -> bool:
    """Whether a node returns its first argument, or the one item of it that is not empty."""
    name = op_name(node)
    if name in _INFERENCE_IDENTITIES:
        return not node.args[2]
    if name == "aten.cat.default":
        return len(_filled(node)) == 1 and _same_type(_filled(node)[0], node)
    dims = permutation(node)
    idle = name in _IDENTITIES or _adds_nothing(node) or dims == list(range(len(dims or [])))
    return idle and isinstance(node.args[0], fx.Node) and _same_type(node.args[0], node)


def _kept(node: fx.Node) -> fx.Node:
    return _filled(node)[0] if op_name(node) == "aten.cat.default" else node.args[0]  # type: ignore[return-value]


def _filled(cat: fx.Node) -> list[fx.Node]:
    """The items of a concatenation that are known not to be empty."""
    items: Any = cat.args[0]
    dim: Any = cat.args[1] if len(cat.args) > 1 else cat.kwargs.get("dim", 0)
    values = [item.meta.get("val") for item in items]
    known = all(isinstance(value, torch.Tensor) for value in values)
    empty = [
        known and value.dim() > 0 and isinstance(value.shape[dim], int) and not value.shape[dim]
        for value in values
    ]
    return [item for item, is_empty in zip(items, empty, strict=True) if not is_empty]


def _adds_nothing(node: fx.Node) -> bool:
    neutral = _NEUTRAL.get(op_name(node))
    if neutral is None or node.kwargs or isinstance(node.args[1], fx.Node):
        return False
    return node.args[1] == neutral


def _same_type(left: fx.Node, right: fx.Node) -> bool:
    before, after = left.meta.get("val"), right.meta.get("val")
    if not isinstance(before, torch.Tensor) or not isinstance(after, torch.Tensor):
        return False
    return (
        before.dtype == after.dtype
        and before.device == after.device
        and same_sizes(before.shape, after.shape)
    )
