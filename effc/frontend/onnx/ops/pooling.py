"""Pooling."""

from __future__ import annotations

import operator
from functools import reduce
from typing import Any

import torch

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.ops.windows import Windows, extent, for_rank, padded, windows
from effc.frontend.onnx.table import Translation
from effc.frontend.onnx.values import Size, Value

aten = torch.ops.aten

_MAX = (aten.max_pool2d.default, aten.max_pool2d.default, aten.max_pool3d.default)
_MAX_WITH_INDICES = (
    aten.max_pool2d_with_indices.default,
    aten.max_pool2d_with_indices.default,
    aten.max_pool3d_with_indices.default,
)
_AVERAGE = (aten.avg_pool1d.default, aten.avg_pool2d.default, aten.avg_pool3d.default)
_CONV = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)


def max_pool(
    g: Builder,
    x: Value,
    *,
    kernel_shape: list[int],
    storage_order: int = 0,
    ceil_mode: int = 0,
    **attributes: Any,
) -> Value | tuple[Value, ...]:
    """The largest element of every window, and where it stood."""
    rank, source = len(kernel_shape), x
    shift: list[Size] = [0] * rank
    over = windows(g, x, list(kernel_shape), **attributes)
    padding, up = _own_padding(over), _rounds_up(ceil_mode, attributes)
    if padding is None:
        over = windows(g, x, list(kernel_shape), ceil_mode=ceil_mode, **attributes)
        source = padded(g, x, over.begin, over.end, _lowest(g.dtype(x)))
        padding, up, shift = [0] * rank, False, over.begin
    parts = [kernel_shape, over.strides, padding, over.dilations]
    if rank == 1:
        # The one-dimensional operator has no indices, and holds for one length only.
        parts = [[fill, *part] for fill, part in zip((1, 1, 0, 1), parts, strict=True)]
    indices = any(g.wanted[1:])
    target = for_rank(_MAX_WITH_INDICES if indices else _MAX, rank)
    tall = g.call(aten.unsqueeze.default, source, -2) if rank == 1 else source
    pooled = g.call(target, tall, *parts, up)
    found = _both(g, pooled) if indices else [pooled]
    if rank == 1:
        found = [g.call(aten.squeeze.dim, part, -2) for part in found]
    if not indices:
        return found[0]
    return found[0], _flat_indices(g, found[1], x, source, shift, storage_order)


def _lowest(dtype: torch.dtype) -> float:
    return float("-inf") if dtype.is_floating_point else torch.iinfo(dtype).min


def _rounds_up(ceil_mode: int, attributes: dict[str, Any]) -> bool:
    """Automatic padding settles the number of windows by itself."""
    return bool(ceil_mode) and attributes.get("auto_pad", "NOTSET") == "NOTSET"


def _both(g: Builder, results: Any) -> list[Any]:
    return list(results) if isinstance(results, tuple) else g.items(results, 2)


def _own_padding(over: Windows) -> list[int] | None:
    """Padding that aten's pooling takes: the same on both sides, half a window at most."""
    padding = over.symmetric
    if padding is None:
        return None
    known = zip(over.kernel, over.dilations, strict=True)
    spans = [(int(k) - 1) * d + 1 for k, d in known]  # type: ignore[arg-type]
    return padding if all(2 * p <= s for p, s in zip(padding, spans, strict=True)) else None


def _flat_indices(
    g: Builder, where: Value, x: Value, source: Value, shift: list[Size], storage_order: int
) -> Value:
    """Indices within one padded plane as indices into all of x.

    Args:
        where: [N, C, ...] row-major index within a plane of `source`.
        shift: where a plane of x begins in one of `source`.
        storage_order: 1 counts columns first within a plane.
    """
    sizes, inner = g.shape(x)[2:], g.shape(source)[2:]
    places, rest = [], where
    for size, begin in reversed(list(zip(inner, shift, strict=True))):
        place = g.call(aten.remainder.Scalar, rest, size)
        rest = g.call(aten.floor_divide.Scalar, rest, size)
        places.insert(0, g.call(aten.sub.Scalar, place, begin))
    order = list(zip(places, sizes, strict=True))
    flat: Any = None
    for place, size in reversed(order) if storage_order else order:
        flat = (
            place
            if flat is None
            else g.call(aten.add.Tensor, g.call(aten.mul.Scalar, flat, size), place)
        )
    batch, channels = g.size(x, 0), g.size(x, 1)
    planes = g.call(aten.arange.default, g.arith(operator.mul, batch, channels))
    planes = g.call(aten.reshape.default, planes, [batch, channels, *[1] * len(sizes)])
    starts = g.call(aten.mul.Scalar, planes, _product(g, sizes))
    return g.call(aten.add.Tensor, flat, starts)


def _product(g: Builder, sizes: list[Size]) -> Size:
    return reduce(lambda a, b: g.arith(operator.mul, a, b), sizes, 1)


def average_pool(
    g: Builder,
    x: Value,
    *,
    kernel_shape: list[int],
    count_include_pad: int = 0,
    ceil_mode: int = 0,
    **attributes: Any,
) -> Value:
    """The mean of every window; padding counts or does not."""
    declared = windows(g, x, list(kernel_shape), **attributes)
    padding = _own_padding(declared)
    if padding is not None and set(declared.dilations) == {1}:
        up = _rounds_up(ceil_mode, attributes)
        rest = (kernel_shape, declared.strides, padding, up, bool(count_include_pad))
        return g.call(for_rank(_AVERAGE, declared.rank), x, *rest)
    over = windows(g, x, list(kernel_shape), ceil_mode=ceil_mode, **attributes)
    ones = g.call(aten.ones.default, [1, 1, *g.shape(x)[2:]], dtype=g.dtype(x))
    if count_include_pad:
        ones = padded(g, ones, declared.begin, declared.end, 1)
        cut = [g.arith(operator.sub, a, b) for a, b in zip(over.end, declared.end, strict=True)]
        ones = padded(g, ones, [0] * over.rank, cut)
    else:
        ones = padded(g, ones, over.begin, over.end)
    sums = _sum_pool(g, padded(g, x, over.begin, over.end), over)
    return g.call(aten.div.Tensor, sums, _sum_pool(g, ones, over))


def _sum_pool(g: Builder, x: Value, over: Windows) -> Value:
    """The sum of every window of the padded x, as a convolution with ones."""
    batch, channels, *sizes = g.shape(x)
    planes = g.call(aten.reshape.default, x, [g.arith(operator.mul, batch, channels), 1, *sizes])
    ones = g.call(aten.ones.default, [1, 1, *over.kernel], dtype=g.dtype(x))
    rest = (None, over.strides, [0] * over.rank, over.dilations)
    sums = g.call(for_rank(_CONV, over.rank), planes, ones, *rest)
    return g.call(aten.reshape.default, sums, [batch, channels, *g.shape(sums)[2:]])


def lp_pool(
    g: Builder, x: Value, *, kernel_shape: list[int], p: int = 2, **attributes: Any
) -> Value:
    """The p-norm of every window."""
    over = windows(g, x, list(kernel_shape), **attributes)
    powers = g.call(aten.pow.Tensor_Scalar, g.call(aten.abs.default, x), p)
    sums = _sum_pool(g, padded(g, powers, over.begin, over.end), over)
    return g.call(aten.pow.Tensor_Scalar, sums, 1 / p)


def _spatial(g: Builder, x: Value) -> list[int]:
    return list(range(2, g.rank(x)))


def global_average_pool(g: Builder, x: Value) -> Value:
    """The mean of every channel."""
    return g.call(aten.mean.dim, x, _spatial(g, x), True)


def global_max_pool(g: Builder, x: Value) -> Value:
    """The largest element of every channel."""
    return g.call(aten.amax.default, x, _spatial(g, x), True)


def global_lp_pool(g: Builder, x: Value, *, p: int = 2) -> Value:
    """The p-norm of every channel."""
    return g.call(aten.linalg_vector_norm.default, x, p, _spatial(g, x), True)


def max_unpool(
    g: Builder,
    x: Value,
    indices: Value,
    output_shape: Value = None,
    *,
    kernel_shape: list[int],
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Value:
    """Put elements back to where they stood before `max_pool`; zeros elsewhere."""
    rank = len(kernel_shape)
    strides, pads = strides or [1] * rank, pads or [0] * (2 * rank)
    shape = g.shape(x)[:2]
    for i, (kernel, stride) in enumerate(zip(kernel_shape, strides, strict=True)):
        steps = g.arith(operator.mul, g.arith(operator.sub, g.size(x, i + 2), 1), stride)
        span = extent(g, kernel, 1)
        reached = g.arith(operator.add, steps, span)
        shape.append(g.arith(operator.sub, reached, pads[i] + pads[i + rank]))
    zeros = g.call(aten.zeros.default, [_product(g, shape)], dtype=g.dtype(x))
    places, values = (g.call(aten.reshape.default, part, [-1]) for part in (indices, x))
    filled = g.call(aten.scatter.src, zeros, 0, places, values)
    y = g.call(aten.reshape.default, filled, shape)
    if output_shape is None:
        return y
    wanted = g.ints(output_shape)
    end = [g.arith(operator.sub, a, b) for a, b in zip(wanted, shape, strict=True)]
    return padded(g, y, [0] * (rank + 2), end)


TABLE: dict[str, Translation] = {
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average_pool,
    "GlobalLpPool": global_lp_pool,
    "GlobalMaxPool": global_max_pool,
    "LpPool": lp_pool,
    "MaxPool": max_pool,
    "MaxUnpool": max_unpool,
}
