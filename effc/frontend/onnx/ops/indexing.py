"""Operators that read or write elements at given indices.

Indices may be negative in ONNX and count from the end then. `aten.index` and `aten.select` know
that; for the others negative ones are wrapped. The exception is a gather from the rows of a
weight, which becomes `aten.embedding`: token ids are never negative, and it refuses those that
are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.ops.shapes import normalized, product, reshaped, transpose
from effc.frontend.onnx.ops.unsigned import bits, by_bits, cast
from effc.frontend.onnx.table import Translation
from effc.frontend.onnx.values import Mismatch, Size, Unsupported, Value

aten = torch.ops.aten


def gather(g: Builder, x: Value, indices: Value, axis: int = 0) -> Value:
    """Slices of x at indices of any shape."""
    axis = normalized(g, axis, g.rank(x))  # type: ignore[assignment]
    known = g.constant(indices)
    if known is not None and known.dim() == 0:
        return g.call(aten.select.int, x, axis, int(known))
    if axis == 0 and _is_table(g, x) and known is None:
        return g.call(aten.embedding.default, x, indices)
    if known is not None and known.dim() == 1 and not bool((known < 0).any()):
        return g.call(aten.index_select.default, x, axis, known)
    return g.call(aten.index.Tensor, x, [*[None] * axis, indices])


def _is_table(g: Builder, x: Value) -> bool:
    """A weight of rows, or one of columns that is turned for looking up (a head's, shared)."""
    while isinstance(x, fx.Node) and x.target is aten.permute.default:
        x = x.args[0]  # type: ignore[assignment]
    return (
        isinstance(x, fx.Node)
        and x.op == "get_attr"
        and g.rank(x) == 2
        and g.dtype(x).is_floating_point
    )


def wrapped(g: Builder, indices: Value, size: Size) -> Value:
    """Indices in int64, those below 0 counted from the end."""
    indices = cast(g, indices, torch.int64)
    known = g.constant(indices)
    if known is not None and not bool((known < 0).any()):
        return indices
    negative = g.call(aten.lt.Scalar, indices, 0)
    return g.call(aten.where.self, negative, g.call(aten.add.Tensor, indices, size), indices)


def gather_elements(g: Builder, x: Value, indices: Value, axis: int = 0) -> Value:
    """`aten.gather`."""
    return g.call(aten.gather.default, x, axis, wrapped(g, indices, g.size(x, axis)))


def gather_nd(g: Builder, x: Value, indices: Value, batch_dims: int = 0) -> Value:
    """Slices of x at index tuples, which are the rows of `indices`."""
    return g.call(aten.index.Tensor, x, _columns(g, x, indices, batch_dims))


def _columns(g: Builder, x: Value, indices: Value, batch_dims: int = 0) -> list[Value]:
    """One index tensor per dimension that is indexed; they broadcast to each other."""
    width, rank = g.size(indices, -1), g.rank(indices)
    if not isinstance(width, int):
        raise Unsupported("the length of index tuples is only known at run time")
    if not 1 <= width <= g.rank(x) - batch_dims:
        raise Mismatch(f"index tuples of length {width} into rank {g.rank(x)}")
    batch = []
    for dim in range(batch_dims):
        rows = g.call(aten.arange.default, g.size(x, dim))
        batch.append(g.call(aten.reshape.default, rows, [-1, *[1] * (rank - 2 - dim)]))
    return [*batch, *(g.call(aten.select.int, indices, -1, i) for i in range(width))]


_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def scatter_elements(
    g: Builder, x: Value, indices: Value, updates: Value, axis: int = 0, reduction: str = "none"
) -> Value:
    """`aten.scatter`; a reduction joins an update with what is there."""
    places = wrapped(g, indices, g.size(x, axis))
    return _scatter(g, x, axis, places, updates, reduction)


def _scatter(
    g: Builder, x: Value, axis: int, places: Value, updates: Value, reduction: str
) -> Value:
    if reduction == "none":
        return g.call(aten.scatter.src, x, axis, places, updates)
    if reduction not in _REDUCTIONS:
        raise Mismatch(f"unknown reduction {reduction!r}")
    kind = _REDUCTIONS[reduction]
    return g.call(aten.scatter_reduce.two, x, axis, places, updates, kind)


def scatter_nd(
    g: Builder, x: Value, indices: Value, updates: Value, reduction: str = "none"
) -> Value:
    """Write slices at index tuples."""
    columns = _columns(g, x, indices)
    if reduction in ("none", "add"):
        return g.call(aten.index_put.default, x, columns, updates, reduction == "add")
    shape = g.shape(x)
    rows, rest = product(g, shape[: len(columns)]), shape[len(columns) :]
    place: Any = 0
    for dim, column in enumerate(columns):
        step = product(g, shape[dim + 1 : len(columns)])
        offset = g.call(aten.mul.Tensor, wrapped(g, column, shape[dim]), step)
        place = offset if dim == 0 else g.call(aten.add.Tensor, place, offset)
    width = product(g, rest)
    flat = g.call(aten.reshape.default, x, [rows, width])
    values = g.call(aten.reshape.default, updates, [-1, width])
    column = g.call(aten.reshape.default, place, [-1, 1])
    places = g.call(aten.expand.default, column, [-1, width])
    written = _scatter(g, flat, 0, places, values, reduction)
    return g.call(aten.reshape.default, written, shape)


def tensor_scatter(
    g: Builder, cache: Value, update: Value, starts: Value = None, axis: int = -2,
    mode: str = "linear",
) -> Value:  # fmt: skip
    """Write [B, ..., T, ...] into a cache from a start per sequence; "circular" goes round."""
    rank = g.rank(cache)
    axis = axis % rank
    count = g.size(update, axis)
    steps = reshaped(g, g.call(aten.arange.default, count), _along(axis, rank, -1))
    if starts is not None:
        first = g.call(aten.reshape.default, cast(g, starts, torch.int64), _along(0, rank, -1))
        steps = g.call(aten.add.Tensor, first, steps)
    if mode == "circular":
        steps = g.call(aten.remainder.Scalar, steps, g.size(cache, axis))
    places = g.call(aten.expand.default, steps, g.shape(update))
    return g.call(aten.scatter.src, cache, axis, places, update)


def _along(axis: int, rank: int, size: Size) -> list[Size]:
    """The shape of a vector that lies along one axis."""
    return [size if d == axis else 1 for d in range(rank)]


def one_hot(g: Builder, indices: Value, depth: Value, values: Value, axis: int = -1) -> Value:
    """values[1] at the index, values[0] elsewhere; everywhere for an index outside."""
    rank = g.rank(indices) + 1
    axis = axis % rank
    size = g.int(depth)
    index = g.call(aten.unsqueeze.default, wrapped(g, indices, size), axis)
    places = g.call(aten.reshape.default, g.call(aten.arange.default, size), _along(axis, rank, -1))
    hit = g.call(aten.eq.Tensor, index, places)
    off, on = (g.call(aten.select.int, values, 0, i) for i in (0, 1))
    return g.call(aten.where.self, hit, on, off)


def non_zero(g: Builder, x: Value) -> Value:
    """Indices [rank, count]."""
    return g.call(aten.permute.default, g.call(aten.nonzero.default, bits(g, x)), [1, 0])


def reverse_sequence(
    g: Builder, x: Value, lengths: Value, batch_axis: int = 1, time_axis: int = 0
) -> Value:
    """Of every sequence of a batch the first `length` steps, reversed."""
    steps = g.call(aten.arange.default, g.size(x, time_axis))
    steps = g.call(aten.unsqueeze.default, steps, 1)
    mirrored = g.call(aten.sub.Tensor, g.call(aten.sub.Tensor, lengths, 1), steps)
    inside = g.call(aten.lt.Tensor, steps, lengths)
    source = g.call(aten.where.self, inside, mirrored, steps)
    rows = g.call(aten.arange.default, g.size(x, batch_axis))
    rest = [d for d in range(g.rank(x)) if d not in (batch_axis, time_axis)]
    order = [time_axis, batch_axis, *rest]
    turned = transpose(g, x, order)
    found = g.call(aten.index.Tensor, turned, [source, rows])
    return transpose(g, found, [order.index(d) for d in range(len(order))])


def compress(g: Builder, x: Value, condition: Value, axis: int | None = None) -> Value:
    """The elements (or slices) where the condition holds; it may be shorter than they are."""
    if axis is None:
        x, axis = g.call(aten.reshape.default, x, [-1]), 0
    chosen = g.call(aten.nonzero.default, condition)
    return g.call(aten.index_select.default, x, axis, g.call(aten.select.int, chosen, 1, 0))


TABLE: dict[str, Translation] = {
    "Compress": by_bits(compress),
    "Gather": by_bits(gather),
    "GatherElements": by_bits(gather_elements),
    "GatherND": by_bits(gather_nd),
    "NonZero": non_zero,
    "OneHot": one_hot,
    "ReverseSequence": by_bits(reverse_sequence),
    "Scatter": by_bits(scatter_elements),
    "ScatterElements": by_bits(scatter_elements),
    "ScatterND": by_bits(scatter_nd),
    "TensorScatter": by_bits(tensor_scatter),
}
