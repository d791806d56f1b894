"""Which operators keep tokens apart.

A cache may be inserted only if attention is the one place where tokens meet: everything else must
give token t the same result whether its neighbours are in the call or not, and whichever sequences
share the batch. The analysis follows the symbolic sizes T and B through the shapes: an operator
that reduces, cuts, orders or pairs along a dimension that holds one of them, or whose meaning is
unknown, is an obstacle.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass

from torch import fx

from effc.ir.axis import Axis, tensors
from effc.ir.pattern import op_name
from effc.ir.program import Stage
from effc.ir.token_rules import rule_of

_SIZES = ("aten.sym_size.int", "aten.sym_numel.default", "aten.sym_stride.int")


@dataclass(frozen=True)
class Obstacle:
    """A node at which tokens may meet outside attention."""

    node: fx.Node
    reason: str


def obstacles(stage: Stage, ids: str = "ids") -> Iterator[Obstacle]:
    """Everything that forbids a cache, in graph order.

    Args:
        stage: a cacheless graph without dead code.
        ids: an input [B, T, ...], both sizes symbolic.
    """
    axes = axes_of(stage, ids)
    for node in stage.graph.nodes:
        if node.op == "call_function":
            reasons = (objection(axis, node) for axis in axes)
            if reason := next(filter(None, reasons), ""):
                yield Obstacle(node, reason)


def axes_of(stage: Stage, ids: str) -> tuple[Axis, Axis]:
    """The tokens and the rows of a stage."""
    rows, tokens = (size.node.expr for size in stage.placeholder(ids).meta["val"].shape[:2])
    return (
        Axis(tokens, outer=frozenset({rows}), noun="tokens", place=2),
        Axis(rows, outer=frozenset(), noun="sequences", place=0),
    )


def objection(axis: Axis, node: fx.Node) -> str:
    """Why a node may mix what lies along an axis; an empty text if it cannot."""
    outputs = tensors(node.meta.get("val"))
    inputs = [t for n in node.all_input_nodes for t in tensors(n.meta.get("val"))]
    held = any(axis.dims(tensor) for tensor in inputs)
    if not outputs:
        # Sizes are harmless until a tensor is computed from them as numbers.
        number = held and op_name(node) not in _SIZES
        return f"turns {axis.noun} into a number" if number else ""
    if node.target is operator.getitem:
        return ""
    if not held and not any(axis.dims(tensor) for tensor in outputs):
        return f"computes with the number of {axis.noun}" if axis.numbers(node) else ""
    if any(len(axis.dims(tensor)) > 1 for tensor in outputs):
        return f"pairs {axis.noun} with {axis.noun}"
    rule = rule_of(node)
    return rule(axis, node) if rule else f"is not known to keep {axis.noun} apart"
