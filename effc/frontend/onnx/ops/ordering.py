"""Operators that order elements, or count along a dimension: TopK, ArgMax, Unique, CumSum."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.ops.unsigned import by_bits, by_keys, from_keys, keys, lacks_kernels
from effc.frontend.onnx.table import Translation
from effc.frontend.onnx.values import Size, Value

aten = torch.ops.aten


def top_k(
    g: Builder, x: Value, k: Any = None, axis: int = -1, largest: int = 1, sorted: int = 1
) -> tuple[Value, ...]:
    """The first k of a stable sort: of equal elements the one with the lower index comes first.

    `aten.topk` promises no order among equal elements.
    """
    ordered = g.call(aten.sort.stable, keys(g, x), stable=True, dim=axis, descending=bool(largest))
    values, places = _pair(g, ordered)
    count = g.int(k)
    values = g.call(aten.slice.Tensor, values, axis, 0, count)
    if lacks_kernels(g, x):
        values = from_keys(g, values, g.dtype(x))
    return values, g.call(aten.slice.Tensor, places, axis, 0, count)


def _pair(g: Builder, found: Any) -> list[Any]:
    return g.items(found, 2) if isinstance(found, fx.Node) else list(found)


def arg_extreme(target: Any) -> Translation:
    """The index of the largest or the smallest element."""

    def translate(
        g: Builder, x: Value, axis: int = 0, keepdims: int = 1, select_last_index: int = 0
    ) -> Value:
        if not select_last_index:
            return g.call(target, x, axis, bool(keepdims))
        last = g.arith(operator.sub, g.size(x, axis), 1)
        found = g.call(target, g.call(aten.flip.default, x, [axis]), axis, bool(keepdims))
        return g.call(aten.rsub.Scalar, found, last)

    return by_keys(translate, restore=False)


def cumulative(target: Any, neutral: int) -> Translation:
    """Sums or products along an axis, of all elements up to each."""

    def translate(
        g: Builder, x: Value, axis: Any = 0, exclusive: int = 0, reverse: int = 0
    ) -> Value:
        dim, dtype, rank = g.int(axis), g.dtype(x), g.rank(x)
        if reverse:
            x = g.call(aten.flip.default, x, [dim])
        if exclusive:
            x = _delayed(g, x, dim, neutral)
        found = g.call(target, x, dim, dtype=dtype)
        found = g.call(aten.flip.default, found, [dim]) if reverse else found
        return g.typed(found, dtype, rank)

    return by_bits(translate)


def _delayed(g: Builder, x: Value, dim: Size, neutral: int) -> Value:
    """All but the last element, after a neutral one."""
    first = g.call(aten.slice.Tensor, x, dim, 0, 1)
    start = g.call(aten.full_like.default, first, neutral)
    rest = g.call(aten.slice.Tensor, x, dim, 0, -1)
    return g.call(aten.cat.default, [start, rest], dim)


def unique(g: Builder, x: Value, axis: int | None = None, sorted: int = 1) -> tuple[Value, ...]:
    """Different elements or slices, the first index of each, where each went, and the counts."""
    key = keys(g, x)
    if axis is None:
        found = g.call(aten._unique2.default, key, True, True, True)
        dim = 0
    else:
        found = g.call(aten.unique_dim.default, key, axis, True, True, True)
        dim = axis
    values, inverse, counts = g.items(found, 3) if isinstance(found, fx.Node) else list(found)
    inverse = g.call(aten.reshape.default, inverse, [-1])
    first = _first_places(g, inverse, counts)
    if not sorted:
        order = g.call(aten.argsort.default, first)
        values = g.call(aten.index_select.default, values, dim, order)
        first, counts = (g.call(aten.index_select.default, v, 0, order) for v in (first, counts))
        rank = g.call(aten.argsort.default, order)
        inverse = g.call(aten.index_select.default, rank, 0, inverse)
    if lacks_kernels(g, x):
        values = from_keys(g, values, g.dtype(x))
    return values, first, inverse, counts


def _first_places(g: Builder, inverse: Value, counts: Value) -> Value:
    """For every different element the least index at which it stands."""
    places = g.call(aten.arange.default, g.call(aten.sym_numel.default, inverse))
    none = g.call(aten.full_like.default, counts, torch.iinfo(torch.int64).max)
    return g.call(aten.scatter_reduce.two, none, 0, inverse, places, "amin")


TABLE: dict[str, Translation] = {
    "ArgMax": arg_extreme(aten.argmax.default),
    "ArgMin": arg_extreme(aten.argmin.default),
    "CumProd": cumulative(aten.cumprod.default, 1),
    "CumSum": cumulative(aten.cumsum.default, 0),
    "TopK": top_k,
    "Unique": unique,
}
