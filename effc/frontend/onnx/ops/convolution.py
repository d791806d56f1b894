"""Convolutions."""

from __future__ import annotations

import operator
from functools import reduce
from typing import Any

import torch

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.ops.sampling import bilinear
from effc.frontend.onnx.ops.windows import (
    Windows,
    extent,
    for_rank,
    halves,
    padded,
    windows,
)
from effc.frontend.onnx.table import Translation
from effc.frontend.onnx.values import Size, Unsupported, Value

aten = torch.ops.aten

_CONV = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
_TRANSPOSED = (
    aten.conv_transpose1d.default,
    aten.conv_transpose2d.input,
    aten.conv_transpose3d.input,
)


def conv(
    g: Builder, x: Value, w: Value, b: Value = None, *, group: int = 1, **attributes: Any
) -> Value:
    """Convolution of x [N, C, ...] with w [M, C / group, ...]."""
    attributes.pop("kernel_shape", None)
    over = windows(g, x, g.shape(w)[2:], **attributes)
    target = for_rank(_CONV, over.rank)
    padding = over.symmetric
    if padding is None:
        x, padding = padded(g, x, over.begin, over.end), [0] * over.rank
    return g.call(target, x, w, b, over.strides, padding, over.dilations, group)


def conv_integer(
    g: Builder,
    x: Value,
    w: Value,
    x_zero_point: Value = None,
    w_zero_point: Value = None,
    **attributes: Any,
) -> Value:
    """Convolution of 8-bit integers, with sums in 32 bits.

    Computed in double precision, which holds all products and sums exactly.
    """
    x, w = (g.call(aten.to.dtype, value, torch.float64) for value in (x, w))
    if x_zero_point is not None:
        x = g.call(aten.sub.Tensor, x, x_zero_point)
    if w_zero_point is not None:
        if g.rank(w_zero_point) == 1:
            each = [-1, *[1] * (g.rank(w) - 1)]
            w_zero_point = g.call(aten.reshape.default, w_zero_point, each)
        w = g.call(aten.sub.Tensor, w, w_zero_point)
    return g.call(aten.to.dtype, conv(g, x, w, **attributes), torch.int32)


def conv_transpose(
    g: Builder,
    x: Value,
    w: Value,
    b: Value = None,
    *,
    group: int = 1,
    output_padding: list[int] | None = None,
    output_shape: list[int] | None = None,
    **attributes: Any,
) -> Value:
    """Transposed convolution of x [N, C, ...] with w [C, M / group, ...]."""
    attributes.pop("kernel_shape", None)
    kernel = g.shape(w)[2:]
    extra = output_padding or [0] * len(kernel)
    over = _transposed_windows(g, x, kernel, extra, output_shape, **attributes)
    target = for_rank(_TRANSPOSED, over.rank)
    limits = [max(s, d) for s, d in zip(over.strides, over.dilations, strict=True)]
    padding = over.symmetric
    if padding is not None and all(e < limit for e, limit in zip(extra, limits, strict=True)):
        rest = (over.strides, padding, extra, group, over.dilations)
        return g.call(target, x, w, b, *rest)
    none = [0] * over.rank
    full = g.call(target, x, w, None, over.strides, none, none, group, over.dilations)
    begin = [g.arith(operator.neg, size) for size in over.begin]
    end = [g.arith(operator.sub, e, size) for e, size in zip(extra, over.end, strict=True)]
    y = padded(g, full, begin, end)
    if b is None:
        return y
    return g.call(aten.add.Tensor, y, g.call(aten.reshape.default, b, [-1, *[1] * over.rank]))


def _transposed_windows(
    g: Builder,
    x: Value,
    kernel: list[Size],
    extra: list[int],
    output_shape: list[int] | None,
    *,
    auto_pad: str = "NOTSET",
    **attributes: Any,
) -> Windows:
    """The windows whose padding gives the wanted output size."""
    automatic = auto_pad in ("SAME_UPPER", "SAME_LOWER")
    plain = windows(g, x, kernel, auto_pad="NOTSET" if automatic else auto_pad, **attributes)
    if not automatic and output_shape is None:
        return plain
    begin, end = [], []
    for i, stride in enumerate(plain.strides):
        size = g.size(x, i + 2)
        wanted = (
            output_shape[i - plain.rank] if output_shape else g.arith(operator.mul, size, stride)
        )
        steps = g.arith(operator.mul, g.arith(operator.sub, size, 1), stride)
        span = g.arith(operator.add, extent(g, kernel[i], plain.dilations[i]), extra[i])
        total = g.arith(operator.sub, g.arith(operator.add, steps, span), wanted)
        first, last = halves(g, total, larger_end=auto_pad == "SAME_UPPER")
        begin.append(first)
        end.append(last)
    return Windows(kernel, plain.strides, plain.dilations, begin, end)


def col2im(
    g: Builder,
    x: Value,
    image_shape: Value,
    block_shape: Value,
    *,
    dilations: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Value:
    """Sum the blocks x [N, C * prod(block), L] into images [N, C, ...].

    Every element of a block goes to one place, so this is a transposed convolution in which each
    of them has a kernel with a single 1.
    """
    image, block = g.ints(image_shape), g.ints(block_shape)
    rank = len(image)
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    pads = pads or [0] * (2 * rank)
    count = reduce(lambda a, b: g.arith(operator.mul, a, b), block)
    blocks, end = [], []
    for i in range(rank):
        room = g.arith(operator.add, image[i], pads[i] + pads[i + rank])
        span = extent(g, block[i], dilations[i])
        steps = g.arith(operator.floordiv, g.arith(operator.sub, room, span), strides[i])
        blocks.append(g.arith(operator.add, steps, 1))
        reached = g.arith(operator.add, g.arith(operator.mul, steps, strides[i]), span)
        end.append(g.arith(operator.sub, g.arith(operator.sub, room, reached), pads[i + rank]))
    ones = g.call(aten.eye.default, count, dtype=g.dtype(x))
    kernels = g.call(aten.reshape.default, ones, [count, 1, *block])
    maps = _reshaped(g, x, [-1, count, *blocks])
    none = [0] * rank
    target = for_rank(_TRANSPOSED, rank)
    full = g.call(target, maps, kernels, None, strides, none, none, 1, dilations)
    cut = padded(g, full, [-pad for pad in pads[:rank]], end)
    return _reshaped(g, cut, [g.size(x, 0), -1, *image])


def _reshaped(g: Builder, x: Value, shape: list[Size]) -> Value:
    """A reshape whose result, at sizes of run time, is typed without formulas of these.

    For the size -1 torch divides one product of formulas by another, which takes it seconds.
    """
    if all(isinstance(size, int) for size in shape):
        return g.call(aten.reshape.default, x, shape)
    return g.typed(g.emit_as(None, aten.reshape.default, g.node(x), shape), g.dtype(x), len(shape))


def deform_conv(
    g: Builder,
    x: Value,
    w: Value,
    offset: Value,
    b: Value = None,
    mask: Value = None,
    *,
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
    offset_group: int = 1,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Value:
    """Convolution whose kernel elements look at places moved by given offsets.

    Dai et al., "Deformable Convolutional Networks", 2017; with `mask`, Zhu et al., 2018.

    Args:
        x: [N, C, H, W].
        offset: [N, offset_group * K * 2, H_out, W_out], rows before columns, K = kH * kW.
        mask: [N, offset_group * K, H_out, W_out].
    """
    kernel = g.known_ints(g.sizes(g.shape(w)[2:]), "the size of the kernel")
    over = windows(g, x, list(kernel), strides=strides, dilations=dilations, pads=pads)
    if over.rank != 2:
        raise Unsupported(f"{over.rank} spatial dimensions; there must be 2")
    sampled = _sampled(g, x, offset, over, kernel, offset_group)
    if mask is not None:
        batch, _, height, width = g.shape(mask)
        shape = [batch, offset_group, 1, kernel[0] * kernel[1], height, width]
        sampled = g.call(aten.mul.Tensor, sampled, g.call(aten.reshape.default, mask, shape))
    # [N, group, C / group * K, H_out, W_out] and the kernels as rows.
    batch, height, width = g.size(x, 0), g.size(offset, 2), g.size(offset, 3)
    columns = g.call(aten.reshape.default, sampled, [batch, group, -1, height, width])
    filters, depth = g.size(w, 0), g.size(w, 1)
    flat = g.arith(operator.mul, depth, kernel[0] * kernel[1])
    rows = g.call(aten.reshape.default, w, [group, -1, flat])
    y = g.call(aten.einsum.default, "gmk,ngkhw->ngmhw", [rows, columns])
    y = g.call(aten.reshape.default, y, [batch, filters, height, width])
    return (
        y if b is None else g.call(aten.add.Tensor, y, g.call(aten.reshape.default, b, [-1, 1, 1]))
    )


def _sampled(
    g: Builder, x: Value, offset: Value, over: Windows, kernel: list[int], groups: int
) -> Value:
    """What each kernel element sees: [N, offset_group, C / offset_group, K, H_out, W_out]."""
    batch, _, height, width = g.shape(offset)
    moved = g.call(aten.reshape.default, offset, [batch, groups, *kernel, 2, height, width])
    rows, columns = (
        g.call(aten.add.Tensor, g.call(aten.select.int, moved, 4, i), _grid(g, over, i, size))
        for i, size in enumerate((height, width))
    )
    planes = g.arith(operator.mul, batch, groups)
    maps = g.call(aten.reshape.default, x, [planes, -1, *g.shape(x)[2:]])
    places = [g.call(aten.reshape.default, at, [planes, -1]) for at in (rows, columns)]
    seen = bilinear(g, maps, g.call(aten.arange.default, planes), *places)
    count = kernel[0] * kernel[1]
    seen = g.call(aten.reshape.default, seen, [batch, groups, count, height, width, -1])
    return g.call(aten.permute.default, seen, [0, 1, 5, 2, 3, 4])


def _grid(g: Builder, over: Windows, axis: int, size: Size) -> Value:
    """Where kernel elements look before they are moved, along one axis: [kH, kW, H_out, W_out]."""
    starts = g.call(aten.mul.Scalar, g.call(aten.arange.default, size), over.strides[axis])
    inner = g.call(aten.arange.default, over.kernel[axis])
    steps = g.call(aten.mul.Scalar, inner, over.dilations[axis])
    steps = g.call(aten.sub.Scalar, steps, over.begin[axis])
    column, line = ([-1, 1, 1, 1], [-1, 1]) if axis == 0 else ([-1, 1, 1], [1, -1])
    return g.call(
        aten.add.Tensor,
        g.call(aten.reshape.default, steps, column),
        g.call(aten.reshape.default, starts, line),
    )


TABLE: dict[str, Translation] = {
    "Col2Im": col2im,
    "Conv": conv,
    "ConvInteger": conv_integer,
    "ConvTranspose": conv_transpose,
    "DeformConv": deform_conv,
}
