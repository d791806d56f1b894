"""Slice and Pad: parts of a tensor along its dimensions, and more than the tensor."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.ops.shapes import choose, normalized
from effc.frontend.onnx.ops.unsigned import by_bits, known_dtype
from effc.frontend.onnx.table import Translation
from effc.frontend.onnx.values import Mismatch, Size, Unsupported, Value

aten = torch.ops.aten

# Ends at or beyond this mean "to the end"; exporters write the largest int32 or int64.
_NO_END = 2**31 - 1
_LAST = torch.iinfo(torch.int64).max


def slice_(
    g: Builder, x: Value, starts: Any = None, ends: Any = None, axes: Any = None, steps: Any = None
) -> Value:
    """`aten.slice`, once per axis."""
    firsts, lasts = g.ints(starts), g.ints(ends)
    dims = list(range(len(firsts))) if axes is None else g.ints(axes)
    strides = [1] * len(firsts) if steps is None else g.ints(steps)
    if not len(firsts) == len(lasts) == len(dims) == len(strides):
        raise Mismatch("starts, ends, axes and steps have different lengths")
    dtype, rank = known_dtype(g, x), g.rank(x)
    for dim, start, end, step in zip(dims, firsts, lasts, strides, strict=True):
        x = g.typed(_one(g, x, dim, start, end, step), dtype, rank)
    return x


def _one(g: Builder, x: Value, dim: Size, start: Size, end: Size, step: Size) -> Value:
    if isinstance(step, fx.Node):
        return _any_step(g, x, dim, start, end, step)
    if step == 0:
        raise Mismatch("a slice has a step of 0")
    if step < 0:
        # Counted from the other end, element i is element -1 - i.
        x = g.call(aten.flip.default, x, [dim])
        start, end = g.arith(operator.sub, -1, start), g.arith(operator.sub, -1, end)
        if not isinstance(start, int) or start > 0:
            last = g.arith(operator.sub, g.call(aten.sym_size.int, x, dim), 1)
            start = g.arith(torch.sym_min, start, last)
        step = -step
    if isinstance(end, int) and end >= _NO_END:
        end = _LAST
    whole = _LAST if isinstance(dim, fx.Node) else g.size(x, dim)
    if start == 0 and step == 1 and end in (_LAST, whole):
        return x
    if isinstance(whole, fx.Node):
        start, end = _inside(g, whole, start, end)
    return g.call(aten.slice.Tensor, x, dim, start, end, *([] if step == 1 else [step]))


def _inside(g: Builder, size: fx.Node, start: Size, end: Size) -> tuple[Size, Size]:
    """Fixed bounds of a size that varies, made to hold for every size there may be.

    The shape functions decide for one size whether a bound is inside, and which comes first. All
    but the empty tensor have a first and a last element, so the slices that take or leave only
    one of them are what they seem.
    """
    if (start, end) in ((0, 1), (0, -1), (1, _LAST), (-1, _LAST)):
        return start, end
    first, last = _clamped(g, size, start), _clamped(g, size, end)
    if isinstance(start, int) and isinstance(end, int):
        across = (start < 0) != (end < 0) and start != 0 and end != _LAST
        last = g.arith(torch.sym_max, first, last) if across else last
    return first, last


def _clamped(g: Builder, size: fx.Node, bound: Size) -> Size:
    if not isinstance(bound, int) or bound in (0, _LAST):
        return bound
    if bound > 0:
        return g.arith(torch.sym_min, size, bound)
    return g.arith(torch.sym_max, g.arith(operator.add, size, bound), 0)


def _any_step(g: Builder, x: Value, dim: Size, start: Size, end: Size, step: Size) -> Value:
    """A slice whose direction is only known at run time, as the list of its indices."""
    size = g.call(aten.sym_size.int, x, dim)
    forward = g.arith(operator.gt, step, 0)
    last = g.arith(operator.sub, size, 1)
    low = choose(g, forward, 0, -1)
    high = choose(g, forward, size, last)

    def bounded(bound: Size, lowest: Size) -> Size:
        negative = g.arith(operator.lt, bound, 0)
        wrapped = choose(g, negative, g.arith(operator.add, bound, size), bound)
        return g.arith(torch.sym_max, lowest, g.arith(torch.sym_min, wrapped, high))

    first, stop = bounded(start, 0), bounded(end, low)
    # arange refuses an end on the wrong side; such a slice is empty.
    beyond = g.arith(torch.sym_max, first, stop), g.arith(torch.sym_min, first, stop)
    stop = choose(g, forward, *beyond)
    indices = g.call(aten.arange.start_step, first, stop, step)
    return g.call(aten.index_select.default, x, dim, indices)


def pad(
    g: Builder, x: Value, pads: Any = None, constant_value: Value = None, axes: Value = None,
    *, mode: str = "constant", value: float = 0.0,
) -> Value:  # fmt: skip
    """Add (or, where negative, cut) elements before and after; opset 2 names the value `value`."""
    dtype, rank = known_dtype(g, x), g.rank(x)
    before, after = _amounts(g, rank, g.ints(pads), axes)
    if mode == "constant":
        fill = value if constant_value is None else _scalar(g, constant_value)
        return g.typed(_pad_constant(g, x, before, after, fill), dtype, rank)
    if mode not in _SOURCES:
        raise Unsupported(f"padding of mode {mode!r}")
    for dim, (low, high) in enumerate(zip(before, after, strict=True)):
        if low != 0 or high != 0:
            x = g.typed(_pad_by_index(g, x, dim, low, high, mode), dtype, rank)
    return x


def _scalar(g: Builder, value: Value) -> Any:
    known = g.constant(value)
    return g.call(aten.item.default, value) if known is None else known.item()


def _amounts(g: Builder, rank: int, pads: list[Size], axes: Value) -> tuple[list[Size], list[Size]]:
    """What is added before and after, for all dimensions."""
    half = len(pads) // 2
    if axes is None:
        if half != rank:
            raise Mismatch(f"{len(pads)} pads for {rank} dimensions")
        return pads[:half], pads[half:]
    dims = [normalized(g, axis, rank) for axis in g.ints(axes)]
    if half != len(dims):
        raise Mismatch(f"{len(pads)} pads for {len(dims)} axes")
    chosen = [[_at(g, dims, part, d) for d in range(rank)] for part in (pads[:half], pads[half:])]
    return chosen[0], chosen[1]


def _at(g: Builder, dims: list[Size], amounts: list[Size], dim: int) -> Size:
    """The amount for one dimension, 0 when it is not named."""
    found: Size = 0
    for named, amount in zip(dims, amounts, strict=True):
        if isinstance(named, int):
            found = amount if named == dim else found
        else:
            found = choose(g, g.arith(operator.eq, named, dim), amount, found)
    return found


def _pad_constant(g: Builder, x: Value, before: list[Size], after: list[Size], fill: Any) -> Value:
    pairs = list(zip(before, after, strict=True))
    while pairs and pairs[0] == (0, 0):
        pairs.pop(0)
    if not pairs:
        return x
    amounts = [amount for pair in reversed(pairs) for amount in pair]
    return g.call(aten.constant_pad_nd.default, x, amounts, fill)


def _pad_by_index(g: Builder, x: Value, dim: int, low: Size, high: Size, mode: str) -> Value:
    """The result as elements of x: `mode` says which one stands at an index outside."""
    size = g.size(x, dim)
    start, end = g.arith(operator.sub, 0, low), g.arith(operator.add, size, high)
    indices = g.call(aten.arange.start, start, end)
    return g.call(aten.index_select.default, x, dim, _SOURCES[mode](g, indices, size))


def _reflected(g: Builder, index: Value, size: Size) -> Value:
    """A zigzag: 0 1 2 3 2 1 0 1 ..."""
    last = g.arith(operator.sub, size, 1)
    period = g.arith(torch.sym_max, g.arith(operator.mul, last, 2), 1)
    place = g.call(aten.sub.Tensor, g.call(aten.remainder.Scalar, index, period), last)
    return g.call(aten.rsub.Scalar, g.call(aten.abs.default, place), last)


def _nearest(g: Builder, index: Value, size: Size) -> Value:
    return g.call(aten.clamp.default, index, 0, g.arith(operator.sub, size, 1))


def _wrapped(g: Builder, index: Value, size: Size) -> Value:
    return g.call(aten.remainder.Scalar, index, size)


_SOURCES = {"reflect": _reflected, "edge": _nearest, "wrap": _wrapped}

TABLE: dict[str, Translation] = {
    "Pad": by_bits(pad),
    "Slice": by_bits(slice_),
}
