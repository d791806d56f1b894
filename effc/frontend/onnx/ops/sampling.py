"""Values between the elements of a map."""

from __future__ import annotations

import operator

import torch

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.values import Size, Value

aten = torch.ops.aten


def bilinear(g: Builder, maps: Value, images: Value, rows: Value, columns: Value) -> Value:
    """Weighted means of the four elements around places; outside of a map there are zeros.

    Args:
        maps: [N, C, H, W].
        images: [Q] which map each group of places is in.
        rows, columns: places in elements, which broadcast to [Q, ...].

    Returns:
        [Q, ..., C].
    """
    first, *others = corners(g, maps, images, rows, columns)
    for other in others:
        first = g.call(aten.add.Tensor, first, other)
    return first


def corners(g: Builder, maps: Value, images: Value, rows: Value, columns: Value) -> list[Value]:
    """The terms of `bilinear`: four elements, each times its weight."""
    _, channels, height, width = g.shape(maps)
    last = g.call(aten.permute.default, maps, [0, 2, 3, 1])
    flat = g.call(aten.reshape.default, last, [-1, channels])
    base = g.call(aten.reshape.default, images, [-1, *[1] * (g.rank(rows) - 1)])
    base = g.call(aten.mul.Scalar, base, height)
    terms = []
    for row, row_weight in _neighbours(g, rows, height):
        line = g.call(aten.mul.Scalar, g.call(aten.add.Tensor, row, base), width)
        for column, column_weight in _neighbours(g, columns, width):
            weight = g.call(aten.mul.Tensor, row_weight, column_weight)
            seen = g.call(aten.index.Tensor, flat, [g.call(aten.add.Tensor, line, column)])
            terms.append(g.call(aten.mul.Tensor, seen, g.call(aten.unsqueeze.default, weight, -1)))
    return terms


def _neighbours(g: Builder, places: Value, size: Size) -> list[tuple[Value, Value]]:
    """The elements before and after each place, with their weights; 0 outside."""
    lower = g.call(aten.floor.default, places)
    after = g.call(aten.sub.Tensor, places, lower)
    before = g.call(aten.rsub.Scalar, after, 1)
    last = g.arith(operator.sub, size, 1)
    found = []
    for at, weight in ((lower, before), (g.call(aten.add.Scalar, lower, 1), after)):
        inside = g.call(aten.clamp.default, at, 0, last)
        weight = g.call(aten.mul.Tensor, weight, g.call(aten.eq.Tensor, inside, at))
        found.append((g.call(aten.to.dtype, inside, torch.int64), weight))
    return found
