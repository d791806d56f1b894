"""Write a constant of one element as a number.

Before:
    c = weights["model.scale"]               # shape [], 0.125
    y = aten.mul.Tensor(x, c)
    z = aten.div.Tensor(weights["one"], y)
After:
    y = aten.mul.Tensor(x, 0.125)
    z = aten.reciprocal.default(y)

Files of other tools keep every number as a tensor, and some modules fill one; rules look for
numbers. The shape and the element type of the result must not depend on the constant's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import fx

from effc.ir.journal import Journal
from effc.ir.passbase import Outcome, Pass, PassStage
from effc.ir.pattern import op_name
from effc.ir.program import Program
from effc.passes.normalize.shapes import same_sizes

aten = torch.ops.aten

NUMBER = -1


class _Form(NamedTuple):
    """How to write a call once its constant is a number.

    Attributes:
        target: the operator.
        arguments: which of the old arguments it takes, in order; `NUMBER` is the constant.
        other: the argument that decides the element type.
    """

    target: Callable[..., Any]
    arguments: tuple[int, ...]
    other: int


# Operator and position of the constant.
_FORMS: dict[tuple[str, int], _Form] = {
    ("aten.add.Tensor", 0): _Form(aten.add.Tensor, (1, NUMBER), 1),
    ("aten.add.Tensor", 1): _Form(aten.add.Tensor, (0, NUMBER), 0),
    ("aten.sub.Tensor", 0): _Form(aten.rsub.Scalar, (1, NUMBER), 1),
    ("aten.sub.Tensor", 1): _Form(aten.sub.Tensor, (0, NUMBER), 0),
    ("aten.mul.Tensor", 0): _Form(aten.mul.Tensor, (1, NUMBER), 1),
    ("aten.mul.Tensor", 1): _Form(aten.mul.Tensor, (0, NUMBER), 0),
    ("aten.div.Tensor", 0): _Form(aten.reciprocal.default, (1,), 1),
    ("aten.div.Tensor", 1): _Form(aten.div.Tensor, (0, NUMBER), 0),
    ("aten.pow.Tensor_Tensor", 1): _Form(aten.pow.Tensor_Scalar, (0, NUMBER), 0),
    ("aten.where.self", 1): _Form(aten.where.ScalarSelf, (0, NUMBER, 2), 2),
    ("aten.where.self", 2): _Form(aten.where.ScalarOther, (0, 1, NUMBER), 1),
    ("aten.masked_fill.Tensor", 2): _Form(aten.masked_fill.Scalar, (0, 1, NUMBER), 0),
}
# Operators whose elements are all one number, and the position of that argument.
_FILLED_WITH = {
    "aten.full.default": 1,
    "aten.full_like.default": 1,
    "aten.scalar_tensor.default": 0,
}
_FILLED = {
    "aten.zeros.default": 0,
    "aten.zeros_like.default": 0,
    "aten.ones.default": 1,
    "aten.ones_like.default": 1,
}
_OPERATORS = {name for name, _ in _FORMS}


@dataclass(frozen=True)
class InlineScalars(Pass):
    """Constants of one element move into the calls that read them."""

    name: ClassVar[str] = "inline-scalars"
    stage: ClassVar[PassStage] = PassStage.NORMALIZE

    def call(self, program: Program, journal: Journal) -> list[Outcome]:
        """One outcome per call."""
        outcomes = []
        for stage in program.stages.values():
            rewriter = self.rewriter(program, stage, journal)
            for node in list(stage.graph.nodes):
                found = _with_number(program, node)
                if found is None:
                    continue
                place = rewriter.graph_place(node)
                with rewriter.before(node):
                    new = rewriter.call(*found)
                rewriter.replace(node, new)
                outcomes.append(Outcome(place, "applied"))
        return outcomes


def _with_number(program: Program, node: fx.Node) -> tuple[Any, ...] | None:
    """Operator and arguments with a number in place of a constant; None if there is none."""
    name = op_name(node)
    if name not in _OPERATORS or node.kwargs or not isinstance(node.meta.get("val"), torch.Tensor):
        return None
    for index, argument in enumerate(node.args):
        form = _FORMS.get((name, index))
        if form is None or not _is_uniform(argument) or not _stays(node, index, form.other):
            continue
        value = _number(program, argument)
        if NUMBER not in form.arguments and value != 1:
            continue
        return (form.target, *(value if i == NUMBER else node.args[i] for i in form.arguments))
    return None


def _is_uniform(argument: object) -> bool:
    """Whether all elements are one number that is known at compile time."""
    if not isinstance(argument, fx.Node):
        return False
    value = argument.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return False
    if not value.is_floating_point() and value.dtype != torch.int64:
        return False
    if argument.op == "get_attr":
        return value.numel() == 1
    index = _FILLED_WITH.get(op_name(argument))
    if index is None:
        return op_name(argument) in _FILLED
    return isinstance(argument.args[index], int | float)


def _number(program: Program, argument: Any) -> int | float:
    if argument.op == "get_attr":
        return program.weights[str(argument.target)].load().item()
    name = op_name(argument)
    return _FILLED[name] if name in _FILLED else argument.args[_FILLED_WITH[name]]


def _stays(node: fx.Node, index: int, other: int) -> bool:
    """Whether the result has its shape and element type without the constant."""
    constant, kept = node.args[index].meta["val"], node.args[other]  # type: ignore[union-attr]
    if not isinstance(kept, fx.Node) or kept.op == "get_attr":
        return False
    value, result = kept.meta["val"], node.meta["val"]
    if result.dtype != value.dtype or value.is_floating_point() != constant.is_floating_point():
        return False
    ranks = [n.meta["val"].dim() for n in node.all_input_nodes if n is not node.args[index]]
    is_small = isinstance(constant.numel(), int) and constant.numel() == 1
    return (is_small and constant.dim() <= max(ranks)) or same_sizes(value.shape, result.shape)
