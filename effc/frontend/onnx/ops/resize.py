"""Resizing and sampling of images."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import torch
from torch import fx

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.ops.interpolation import Axis, Interpolation, resize_axis
from effc.frontend.onnx.table import Translation
from effc.frontend.onnx.values import Mismatch, Size, Unsupported, Value

aten = torch.ops.aten

# Interpolation and number of spatial dimensions -> the operator that does it at once.
_AT_ONCE = {
    ("nearest", 1): aten.upsample_nearest1d.vec,
    ("nearest", 2): aten.upsample_nearest2d.vec,
    ("nearest", 3): aten.upsample_nearest3d.vec,
    ("linear", 1): aten.upsample_linear1d.vec,
    ("linear", 2): aten.upsample_bilinear2d.vec,
    ("linear", 3): aten.upsample_trilinear3d.vec,
    ("cubic", 2): aten.upsample_bicubic2d.vec,
}
_POWERS_OF_TWO = (1.0, 2.0, 4.0, 8.0)


def resize(
    g: Builder,
    x: Value,
    roi: Value = None,
    scales: Value = None,
    sizes: Value = None,
    *,
    antialias: int = 0,
    axes: list[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Value:
    """Another size by scales or by sizes, along all axes or those named.

    Before opset 11 the scales are the second input, and element i of the output looks at
    i / scale.
    """
    if g.opset < 11:
        return upsample(g, x, roi, mode=mode)
    how = Interpolation(
        mode,
        coordinate_transformation_mode,
        nearest_mode,
        cubic_coeff_a,
        bool(antialias),
        bool(exclude_outside),
        extrapolation_value,
    )
    rank = g.rank(x)
    dims = [axis % rank for axis in axes] if axes is not None else list(range(rank))
    if _given(g, sizes):
        found = _by_sizes(g, x, dims, sizes, keep_aspect_ratio_policy)
    elif _given(g, scales):
        found = _by_scales(g, x, dims, _numbers(g, scales, len(dims)))
    else:
        raise Mismatch("neither scales nor sizes are given")
    if how.transformation == "tf_crop_and_resize":
        found = _cropped(g, found, roi)
    return _resized(g, x, found, how)


def upsample(g: Builder, x: Value, scales: Any = None, *, mode: str = "nearest") -> Value:
    """The older operator: element i of the output looks at i / scale."""
    how = Interpolation(mode, "asymmetric", "floor")
    rank = g.rank(x)
    numbers = scales if isinstance(scales, list) else _numbers(g, scales, rank)
    return _resized(g, x, _by_scales(g, x, list(range(rank)), numbers), how)


def _given(g: Builder, value: Value) -> bool:
    """Absent inputs were empty tensors before they could be left out."""
    return value is not None and g.size(value, 0) != 0


def _numbers(g: Builder, value: Value, count: int) -> list[Any]:
    """The elements of a vector of floats, as numbers or nodes."""
    known = g.constant(value)
    if known is not None:
        return known.double().tolist()
    chosen = [g.call(aten.select.int, value, 0, i) for i in range(count)]
    return [g.call(aten.item.default, item) for item in chosen]


def _by_scales(g: Builder, x: Value, dims: list[int], scales: Sequence[Any]) -> list[Axis]:
    if len(scales) != len(dims):
        raise Mismatch(f"{len(scales)} scales for {len(dims)} axes")
    found = []
    for dim, scale in zip(dims, scales, strict=True):
        size = g.size(x, dim)
        whole = isinstance(scale, float) and scale.is_integer()
        exact = g.arith(operator.mul, size, int(scale) if whole else scale)
        out = exact if whole else g.arith(math.floor, exact)
        unrounded = whole or (isinstance(exact, float) and exact == out)
        found.append(Axis(dim, size, out, scale, unrounded))
    return found


def _by_sizes(g: Builder, x: Value, dims: list[int], sizes: Value, policy: str) -> list[Axis]:
    wanted = g.ints(sizes)
    if len(wanted) != len(dims):
        raise Mismatch(f"{len(wanted)} sizes for {len(dims)} axes")
    given = [g.size(x, dim) for dim in dims]
    scales = [g.arith(operator.truediv, a, b) for a, b in zip(wanted, given, strict=True)]
    if policy != "stretch":
        pick = torch.sym_min if policy == "not_larger" else torch.sym_max
        one = reduce(lambda a, b: g.arith(pick, a, b), scales)
        scales = [one] * len(dims)
        places = [g.arith(operator.add, g.arith(operator.mul, size, one), 0.5) for size in given]
        wanted = [g.arith(math.floor, place) for place in places]
    exact = policy == "stretch"
    rows = zip(dims, given, wanted, scales, strict=True)
    return [Axis(dim, size, out, scale, exact) for dim, size, out, scale in rows]


def _cropped(g: Builder, axes: list[Axis], roi: Value) -> list[Axis]:
    """The axes with the region of the input that is seen: all starts, then all ends."""
    count = len(axes)
    edges = [g.call(aten.select.int, roi, 0, i) for i in range(2 * count)]
    return [replace(axis, start=edges[i], end=edges[i + count]) for i, axis in enumerate(axes)]


def _resized(g: Builder, x: Value, axes: list[Axis], how: Interpolation) -> Value:
    crops = how.transformation == "tf_crop_and_resize"
    axes = [axis for axis in axes if crops or not axis.exact or axis.out != axis.size]
    at_once = _at_once(g, x, axes, how)
    if at_once is not None or not axes:
        return x if at_once is None else at_once
    dtype, rank = g.dtype(x), g.rank(x)
    exact = how.mode == "nearest" or dtype in (torch.float32, torch.float64)
    y = x if exact else g.call(aten.to.dtype, x, torch.float32)
    for axis in axes:
        y = resize_axis(g, y, rank, axis, how)
    return y if exact else g.call(aten.to.dtype, y, dtype)


def _at_once(g: Builder, x: Value, axes: list[Axis], how: Interpolation) -> Value:
    """One call for all spatial axes, None where aten has no operator that means the same."""
    spatial = g.rank(x) - 2
    target = _AT_ONCE.get((how.mode, spatial))
    if target is None or sorted(a.dim for a in axes) != list(range(2, spatial + 2)):
        return None
    if not g.dtype(x).is_floating_point or not all(_means_the_same(axis, how) for axis in axes):
        return None
    corners = how.transformation == "align_corners"
    flags = [] if how.mode == "nearest" else [corners]
    ordered = sorted(axes, key=lambda axis: axis.dim)
    if corners or any(isinstance(axis.scale, fx.Node) for axis in axes):
        return g.call(target, x, [axis.out for axis in ordered], *flags, None)
    return g.call(target, x, None, *flags, [axis.scale for axis in ordered])


def _means_the_same(axis: Axis, how: Interpolation) -> bool:
    """Whether aten looks at the same places along an axis."""
    if how.antialias or how.exclude_outside or (how.mode == "cubic" and how.cubic != -0.75):
        return False
    if how.mode == "nearest":
        # Other factors have places that single precision rounds to the element before.
        rule = (how.transformation, how.nearest)
        return rule == ("asymmetric", "floor") and axis.scale in _POWERS_OF_TWO
    if how.transformation == "align_corners":
        return axis.exact
    number = isinstance(axis.scale, float)
    if how.transformation == "pytorch_half_pixel":
        # A single output element looks at the first of the input, not at its middle.
        several = isinstance(axis.out, int) and axis.out > 1
        return several and axis.exact or number and axis.scale >= 2
    return how.transformation == "half_pixel" and (axis.exact or number)


def grid_sample(
    g: Builder,
    x: Value,
    grid: Value,
    *,
    align_corners: int = 0,
    mode: str = "linear",
    padding_mode: str = "zeros",
) -> Value:
    """Values of x [N, C, ...] at the places of a grid, which go from -1 to 1."""
    modes = {"linear": 0, "bilinear": 0, "nearest": 1, "cubic": 2, "bicubic": 2}
    paddings = {"zeros": 0, "border": 1, "reflection": 2}
    if mode not in modes or padding_mode not in paddings:
        raise Unsupported(f"the mode {mode} with padding {padding_mode}")
    if modes[mode] == 2 and g.rank(x) != 4:
        raise Unsupported("cubic sampling in other than two dimensions")
    if g.dtype(x) != g.dtype(grid):
        grid = g.call(aten.to.dtype, grid, g.dtype(x))
    how = (modes[mode], paddings[padding_mode], bool(align_corners))
    return g.call(aten.grid_sampler.default, x, grid, *how)


def affine_grid(g: Builder, theta: Value, size: Value, *, align_corners: int = 0) -> Value:
    """The grid of `grid_sample` for affine maps [N, 2, 3] or [N, 3, 4]."""
    sizes: list[Size] = g.ints(size)
    target = aten.affine_grid_generator.default
    if all(isinstance(one, int) for one in sizes):
        return g.call(target, theta, sizes, bool(align_corners))
    # Typed here: the operator's own shape function would fix the sizes.
    map_type, fake = g.fake(theta), None
    known: list[Any] = [one.meta.get("val") if isinstance(one, fx.Node) else one for one in sizes]
    if map_type is not None and None not in known:
        with g.mode:
            fake = map_type.new_empty([known[0], *known[2:], len(known) - 2])
    return g.emit_as(fake, target, g.node(theta), sizes, bool(align_corners))


TABLE: dict[str, Translation] = {
    "AffineGrid": affine_grid,
    "GridSample": grid_sample,
    "Resize": resize,
    "Upsample": upsample,
}
