"""Resizing along one axis after another.

Each output element looks at a place between the elements of the input: where that is depends on
the transformation of coordinates, what it sees on the kernel (nearest, linear, cubic).

Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981, for the cubic kernel.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

import torch

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.values import Size, Unsupported, Value

aten = torch.ops.aten


@dataclass(frozen=True)
class Interpolation:
    """The attributes of a Resize node that say how."""

    mode: str = "nearest"
    transformation: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    cubic: float = -0.75
    antialias: bool = False
    exclude_outside: bool = False
    extrapolation: float = 0.0


@dataclass(frozen=True)
class Axis:
    """One axis to resize.

    Attributes:
        dim: which.
        size: of the input.
        out: of the output.
        scale: out / size, before `out` was rounded; a number or a node.
        exact: `out` was not rounded.
        start, end: the part of the input that is seen, from 0 to 1, for "tf_crop_and_resize".
    """

    dim: int
    size: Size
    out: Size
    scale: Any
    exact: bool = False
    start: Value = None
    end: Value = None


def resize_axis(g: Builder, x: Value, rank: int, axis: Axis, how: Interpolation) -> Value:
    """x of a rank, with another size along one axis."""
    at = _coordinates(g, axis, how.transformation)
    if how.mode == "nearest":
        chosen = _inside(g, _nearest(g, at, how.nearest), axis.size)
        y = g.call(aten.index_select.default, x, axis.dim, chosen)
    else:
        y = _weighted(g, x, rank, axis, at, how)
    if how.transformation != "tf_crop_and_resize":
        return y
    last = g.arith(operator.sub, axis.size, 1)
    before, after = g.call(aten.lt.Scalar, at, 0), g.call(aten.gt.Scalar, at, last)
    outside = g.call(aten.logical_or.default, before, after)
    outside = g.call(aten.reshape.default, outside, [-1, *[1] * (rank - axis.dim - 1)])
    return g.call(aten.masked_fill.Scalar, y, outside, how.extrapolation)


def _coordinates(g: Builder, axis: Axis, transformation: str) -> Value:
    """The place in the input that each output element looks at, in float64."""
    places = g.call(aten.arange.default, axis.out, dtype=torch.float64)
    if transformation == "asymmetric":
        return g.call(aten.div.Scalar, places, axis.scale)
    if transformation in ("align_corners", "tf_crop_and_resize"):
        return _between_corners(g, axis, transformation, places)
    halves = g.call(aten.div.Scalar, g.call(aten.add.Scalar, places, 0.5), axis.scale)
    centers = g.call(aten.sub.Scalar, halves, 0.5)
    if transformation == "half_pixel":
        return centers
    if transformation == "pytorch_half_pixel":
        several = g.arith(torch.sym_ite, g.arith(operator.gt, axis.out, 1), 1.0, 0.0)
        return g.call(aten.mul.Scalar, centers, several)
    if transformation == "half_pixel_symmetric":
        exact = g.arith(operator.mul, axis.size, axis.scale)
        lost = g.arith(operator.sub, 1, g.arith(operator.truediv, axis.out, exact))
        shift = g.arith(operator.mul, g.arith(operator.truediv, axis.size, 2), lost)
        return g.call(aten.add.Scalar, centers, shift)
    if transformation == "tf_half_pixel_for_nn":
        return halves
    raise Unsupported(f"the coordinate transformation {transformation}")


def _between_corners(g: Builder, axis: Axis, transformation: str, places: Value) -> Value:
    """The first output element sees the first of the input, the last one the last."""
    last = g.arith(operator.sub, axis.size, 1)
    exact = g.arith(operator.mul, axis.size, axis.scale)
    # One output element has no distance to the next; its place is 0 whatever divides it.
    steps = g.arith(torch.sym_max, g.arith(operator.sub, exact, 1), 1)
    parts = g.call(aten.div.Scalar, places, steps)
    if transformation == "align_corners":
        return g.call(aten.mul.Scalar, parts, last)
    middle = g.arith(torch.sym_ite, g.arith(operator.eq, axis.out, 1), 0.5, 0.0)
    parts = g.call(aten.add.Scalar, parts, middle)
    width = g.call(aten.sub.Tensor, axis.end, axis.start)
    parts = g.call(aten.add.Tensor, g.call(aten.mul.Tensor, parts, width), axis.start)
    return g.call(aten.mul.Scalar, parts, last)


def _nearest(g: Builder, at: Value, rule: str) -> Value:
    if rule in ("floor", "round_prefer_ceil"):
        shifted = at if rule == "floor" else g.call(aten.add.Scalar, at, 0.5)
        return g.call(aten.floor.default, shifted)
    if rule in ("ceil", "round_prefer_floor"):
        shifted = at if rule == "ceil" else g.call(aten.sub.Scalar, at, 0.5)
        return g.call(aten.ceil.default, shifted)
    raise Unsupported(f"the rounding {rule}")


def _inside(g: Builder, index: Value, size: Size) -> Value:
    """Indices as integers; the elements at the edges go on for ever."""
    last = g.arith(operator.sub, size, 1)
    return g.call(aten.to.dtype, g.call(aten.clamp.default, index, 0, last), torch.int64)


def _weighted(g: Builder, x: Value, rank: int, axis: Axis, at: Value, how: Interpolation) -> Value:
    """Weighted sums of the elements around each place."""
    radius = {"linear": 1, "cubic": 2}.get(how.mode)
    if radius is None:
        raise Unsupported(f"the interpolation {how.mode}")
    # Fewer output elements see more of the input each, if they are to miss nothing.
    shrink = g.arith(torch.sym_min, axis.scale, 1.0) if how.antialias else 1.0
    first = g.arith(math.floor, g.arith(operator.truediv, -radius, shrink))
    first = g.arith(operator.add, first, 1)
    end = g.arith(operator.sub, 2, first)
    count = g.arith(operator.sub, end, first)
    offsets = g.call(aten.arange.start, first, end, dtype=torch.float64)

    lower = g.call(aten.unsqueeze.default, g.call(aten.floor.default, at), 1)
    index = g.call(aten.add.Tensor, lower, offsets)
    distance = g.call(aten.sub.Tensor, index, g.call(aten.unsqueeze.default, at, 1))
    weights = _kernel(g, g.call(aten.mul.Scalar, distance, shrink), how)
    chosen = _inside(g, index, axis.size)
    if how.exclude_outside:
        weights = g.call(aten.mul.Tensor, weights, g.call(aten.eq.Tensor, chosen, index))
    if how.exclude_outside or how.antialias:
        total = g.call(aten.sum.dim_IntList, weights, [1], True)
        weights = g.call(aten.div.Tensor, weights, total)

    flat = g.call(aten.reshape.default, chosen, [-1])
    seen = g.call(aten.index_select.default, x, axis.dim, flat)
    seen = g.call(aten.unflatten.int, seen, axis.dim, [axis.out, count])
    shape = [axis.out, count, *[1] * (rank - axis.dim - 1)]
    shaped = g.call(aten.reshape.default, weights, shape)
    terms = g.call(aten.mul.Tensor, seen, g.call(aten.to.dtype, shaped, g.dtype(x)))
    return g.call(aten.sum.dim_IntList, terms, [axis.dim + 1])


def _kernel(g: Builder, distance: Value, how: Interpolation) -> Value:
    """The weight of an element at a distance."""
    t = g.call(aten.abs.default, distance)
    if how.mode == "linear":
        return g.call(aten.clamp.default, g.call(aten.rsub.Scalar, t, 1), 0, 1)
    a = how.cubic
    near = _polynomial(g, t, (a + 2, -(a + 3), 0.0, 1.0))
    far = _polynomial(g, t, (a, -5 * a, 8 * a, -4 * a))
    zeros = g.call(aten.zeros_like.default, t)
    beyond = g.call(aten.where.self, g.call(aten.lt.Scalar, t, 2), far, zeros)
    return g.call(aten.where.self, g.call(aten.le.Scalar, t, 1), near, beyond)


def _polynomial(g: Builder, t: Value, coefficients: tuple[float, ...]) -> Value:
    """By Horner's rule, highest power first."""
    value = g.call(aten.mul.Scalar, t, coefficients[0])
    for coefficient in coefficients[1:-1]:
        value = g.call(aten.mul.Tensor, g.call(aten.add.Scalar, value, coefficient), t)
    return g.call(aten.add.Scalar, value, coefficients[-1])
