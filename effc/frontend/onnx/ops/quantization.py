"""Integers that stand for real numbers: QuantizeLinear, DequantizeLinear and what they fuse into.

    real = (integer - zero point) * scale

with a scale and a zero point for all of a tensor, for each index of one axis, or for each block
of indices of one axis. Real numbers are computed in float32, as ONNX Runtime does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir
import torch
from torch import fx

from effc.frontend.onnx import table
from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.elements import torch_dtype
from effc.frontend.onnx.ops.casting import convert
from effc.frontend.onnx.values import Size, Unsupported, Value

aten = torch.ops.aten

_INTEGERS = {
    onnx_ir.DataType.INT16: (-(1 << 15), (1 << 15) - 1),
    onnx_ir.DataType.UINT16: (0, (1 << 16) - 1),
    onnx_ir.DataType.INT8: (-128, 127),
    onnx_ir.DataType.UINT8: (0, 255),
    onnx_ir.DataType.INT4: (-8, 7),
    onnx_ir.DataType.UINT4: (0, 15),
    onnx_ir.DataType.INT2: (-2, 1),
    onnx_ir.DataType.UINT2: (0, 3),
}
_BYTES = (torch.int8, torch.uint8)
_KINDS = {
    torch.int16: onnx_ir.DataType.INT16,
    torch.uint16: onnx_ir.DataType.UINT16,
    torch.int8: onnx_ir.DataType.INT8,
    torch.uint8: onnx_ir.DataType.UINT8,
}


def dequantize_linear(
    g: Builder,
    x: Value,
    scale: Value,
    zero: Value = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Value:
    """DequantizeLinear: (x - zero) * scale, in the type of the scale or in `output_dtype`."""
    to = torch_dtype(onnx_ir.DataType(output_dtype)) if output_dtype else g.dtype(scale)
    if isinstance(x, torch.Tensor) and g.dtype(x) in _BYTES and x.dim() == 2:
        x = g.read_constant(x)  # a small matrix stays packed as well
    steps, origin = (spread(g, part, x, axis, block_size) for part in (scale, zero))
    return real(g, x, steps, origin, to)


def real(
    g: Builder, x: Value, scale: Value, zero: Value = None, dtype: torch.dtype = torch.float32
) -> Value:
    """(x - zero) * scale for parts that fit together as they are."""
    wide = _float(g, x)
    if zero is not None:
        # Bytes stay bytes: `raise-dequantized-linear` sees that they are integers.
        taken = zero if g.dtype(zero) in _BYTES else _float(g, zero)
        wide = g.call(aten.sub.Tensor, wide, taken)
    return _as(g, g.call(aten.mul.Tensor, wide, _float(g, scale)), dtype)


def quantize_linear(
    g: Builder,
    x: Value,
    scale: Value,
    zero: Value = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Value:
    """QuantizeLinear: round(x / scale) + zero, of the type of `zero` or `output_dtype`."""
    compute = torch_dtype(onnx_ir.DataType(precision)) if precision else g.dtype(scale)
    steps, origin = (spread(g, part, x, axis, block_size) for part in (scale, zero))
    quotient = g.call(aten.div.Tensor, _as(g, x, compute), _as(g, steps, compute))
    return _stored(g, quotient, origin, _kind(g, zero, output_dtype), bool(saturate))


def whole(g: Builder, x: Value, scale: Value, zero: Value, dtype: torch.dtype) -> Value:
    """round(x / scale) + zero, of an 8-bit type, for parts that fit together as they are."""
    quotient = g.call(aten.div.Tensor, x, scale)
    return _stored(g, quotient, zero, _KINDS[dtype], True)


def _stored(
    g: Builder, quotient: Value, zero: Value, kind: onnx_ir.DataType, saturate: bool
) -> Value:
    if kind not in _INTEGERS:
        return convert(g, _float(g, quotient), kind, saturate)
    rounded = g.call(aten.round.default, _float(g, quotient))
    if zero is not None:
        rounded = g.call(aten.add.Tensor, rounded, _float(g, zero))
    low, high = _INTEGERS[kind]
    clamped = g.call(aten.clamp.default, rounded, float(low), float(high))
    return _as(g, clamped, torch_dtype(kind))


def _kind(g: Builder, zero: Value, output_dtype: int) -> onnx_ir.DataType:
    """The ONNX type of the result; what carries 4-bit integers does not tell them from 8-bit."""
    if output_dtype:
        return onnx_ir.DataType(output_dtype)
    if zero is None:
        return onnx_ir.DataType.UINT8
    declared = g.onnx_dtypes[2] if len(g.onnx_dtypes) > 2 else None
    if declared is not None:
        return declared
    if g.dtype(zero) not in _KINDS:
        raise Unsupported("the type of the zero point is not declared")
    return _KINDS[g.dtype(zero)]


def spread(g: Builder, part: Value, x: Value, axis: int, block_size: int = 0) -> Value:
    """Scales or zero points in a shape that broadcasts with x; None stays None."""
    if part is None:
        return None
    rank, wanted = g.rank(part), g.rank(x)
    if block_size:
        if isinstance(part, torch.Tensor) and isinstance(x, fx.Node):
            part = g.read_constant(part)  # as it is, so that `raise-dequantized-linear` sees blocks
        return _blocks(g, part, axis, block_size, g.size(x, axis))
    if rank == 0 or (rank == wanted and rank > 1):
        return part
    if g.size(part, 0) == 1:
        return g.call(aten.reshape.default, part, [])
    shape = [1] * wanted
    shape[axis] = -1
    return g.call(aten.reshape.default, part, shape)


def _blocks(g: Builder, part: Value, axis: int, block_size: int, size: Size) -> Value:
    """Every value for as many indices as a block has; the last block may be cut off."""
    if isinstance(size, int):
        repeated = g.call(aten.repeat_interleave.self_int, part, block_size, axis)
        return g.call(aten.slice.Tensor, repeated, axis, 0, size)
    at = g.call(aten.arange.default, size)
    block = g.call(aten.div.Scalar_mode, at, block_size, rounding_mode="floor")
    return g.call(aten.index_select.default, part, axis, block)


def dynamic_quantize_linear(g: Builder, x: Value) -> tuple[Value, Value, Value]:
    """DynamicQuantizeLinear: to uint8, with the range of x (and 0) as that of the integers.

    Returns:
        The integers, the scale (1 where all of x is 0) and the zero point.
    """
    low = g.call(aten.clamp.default, g.call(aten.amin.default, x), None, 0.0)
    high = g.call(aten.clamp.default, g.call(aten.amax.default, x), 0.0)
    exact = g.call(aten.div.Scalar, g.call(aten.sub.Tensor, high, low), 255.0)
    empty = g.call(aten.eq.Scalar, exact, 0.0)
    scale = g.call(aten.where.ScalarSelf, empty, 1.0, exact)
    zero = g.call(aten.round.default, g.call(aten.div.Tensor, g.call(aten.neg.default, low), scale))
    zero = _as(g, g.call(aten.clamp.default, zero, 0.0, 255.0), torch.uint8)
    return whole(g, x, scale, zero, torch.uint8), scale, zero


def qlinear_matmul(
    g: Builder,
    a: Value,
    a_scale: Value,
    a_zero: Value,
    b: Value,
    b_scale: Value,
    b_zero: Value,
    y_scale: Value,
    y_zero: Value,
) -> Value:
    """QLinearMatMul: a product of integers, exact, and its real value quantized again."""
    product = translation("MatMulInteger")(g, a, b, a_zero, b_zero)
    if g.rank(a_scale) == 1 and g.size(a_scale, 0) != 1:
        a_scale = g.call(aten.unsqueeze.default, a_scale, -1)
    return rescaled(g, product, a_scale, b_scale, y_scale, y_zero)


def qlinear_conv(
    g: Builder,
    x: Value,
    x_scale: Value,
    x_zero: Value,
    w: Value,
    w_scale: Value,
    w_zero: Value,
    y_scale: Value,
    y_zero: Value,
    bias: Value = None,
    **attributes: Any,
) -> Value:
    """QLinearConv: a convolution of integers, plus an int32 bias, quantized again."""
    total = translation("ConvInteger")(g, x, w, x_zero, w_zero, **attributes)
    if bias is not None:
        total = g.call(aten.add.Tensor, total, spread(g, bias, total, 1))
    return rescaled(g, total, x_scale, spread(g, w_scale, total, 1), y_scale, y_zero)


def rescaled(
    g: Builder, total: Value, a_scale: Value, b_scale: Value, y_scale: Value, y_zero: Value
) -> Value:
    """Sums of products of integers, in int32, as integers of the output's scale."""
    inputs = g.call(aten.mul.Tensor, _float(g, a_scale), _float(g, b_scale))
    factor = g.call(aten.div.Tensor, inputs, _float(g, y_scale))
    quotient = g.call(aten.mul.Tensor, _float(g, total), factor)
    return _stored(g, quotient, y_zero, _KINDS[g.dtype(y_zero)], True)


def translation(op_type: str) -> Callable[..., Any]:
    """That of another operator of the standard.

    Raises:
        Unsupported: there is none.
    """
    found = table.find("", op_type)
    if found is None:
        raise Unsupported(f"there is no translation for {op_type}")
    return found


def _float(g: Builder, x: Value) -> Value:
    return _as(g, x, torch.float32)


def _as(g: Builder, x: Value, dtype: torch.dtype) -> Value:
    return x if g.dtype(x) == dtype else g.call(aten.to.dtype, x, dtype)


TABLE: dict[str, table.Translation] = {
    "DequantizeLinear": dequantize_linear,
    "DynamicQuantizeLinear": dynamic_quantize_linear,
    "QLinearConv": qlinear_conv,
    "QLinearMatMul": qlinear_matmul,
    "QuantizeLinear": quantize_linear,
}
