"""What passes ask about shapes and layouts; sizes that are symbols are compared without guards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch.fx.experimental.symbolic_shapes import statically_known_true

from effc.ir.pattern import op_name
from effc.ir.rewriter import GraphRewriter

aten = torch.ops.aten

PERMUTES = (
    "aten.permute.default",
    "aten.transpose.int",
    "aten.swapaxes.default",
    "aten.t.default",
    "aten.numpy_T.default",
)
# Same elements in the same order under another shape.
RESHAPES = (
    "aten.reshape.default",
    "aten.view.default",
    "aten._unsafe_view.default",
    "aten.flatten.using_ints",
    "aten.unflatten.int",
    "aten.unsqueeze.default",
    "aten.squeeze.default",
    "aten.squeeze.dim",
    "aten.squeeze.dims",
)


def shape(node: fx.Node) -> tuple[Any, ...]:
    """The sizes of a node's tensor, integers or symbols."""
    return tuple(node.meta["val"].shape)


def rank(node: fx.Node) -> int:
    """The number of dimensions of a node's tensor."""
    return node.meta["val"].dim()


def is_last(dim: object, node: fx.Node) -> bool:
    """Whether `dim` names the last dimension of a node."""
    return dim in (-1, rank(node) - 1)


def same_sizes(left: Sequence[Any], right: Sequence[Any]) -> bool:
    """Whether two shapes are equal at all sizes of the inputs."""
    return len(left) == len(right) and all(
        statically_known_true(a == b) for a, b in zip(left, right, strict=True)
    )


def same_shape(left: fx.Node, right: fx.Node) -> bool:
    """Whether two nodes have one shape."""
    return same_sizes(shape(left), shape(right))


def permutation(node: fx.Node) -> list[int] | None:
    """Which dimension of its argument each dimension of a node is; None for other operators."""
    name = op_name(node)
    if name not in PERMUTES or not isinstance(node.meta.get("val"), torch.Tensor):
        return None
    dims = list(range(rank(node)))
    if name == "aten.permute.default":
        return [d % len(dims) for d in node.args[1]]  # type: ignore[union-attr]
    if name in ("aten.t.default", "aten.numpy_T.default"):
        return dims[::-1]
    a, b = node.args[1], node.args[2]
    dims[a], dims[b] = dims[b], dims[a]  # type: ignore[index]
    return dims


def permute(rewriter: GraphRewriter, node: fx.Node, dims: Sequence[int]) -> fx.Node:
    """The node with its dimensions in another order; a permutation that it ends in is undone."""
    inner = permutation(node)
    if inner is not None:
        node, dims = node.args[0], [inner[d] for d in dims]  # type: ignore[assignment]
    if list(dims) == list(range(len(dims))):
        return node
    return rewriter.call(aten.permute.default, node, list(dims))
