"""Conversions between element types: Cast and CastLike.

Types that torch lacks are carried by wider ones (`elements.CARRIERS`): a cast to them rounds to
their values, a cast from them is a cast from the carrier.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir
import torch

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.elements import torch_dtype
from effc.frontend.onnx.table import Translation
from effc.frontend.onnx.values import Unsupported, Value

aten = torch.ops.aten

_FLOAT8 = (
    torch.float8_e4m3fn,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2,
    torch.float8_e5m2fnuz,
)

# Types without infinities: the first number that rounds beyond the largest one, and whether it
# does so itself (the even neighbour of a tie may lie above or below).
_OVERFLOW = {
    torch.float8_e4m3fn: (464.0, False),
    torch.float8_e4m3fnuz: (248.0, True),
    torch.float8_e5m2fnuz: (61440.0, True),
}

# Bits of the integers that a wider type carries, and whether they have a sign.
_SMALL_INTEGERS = {
    "INT4": (4, True),
    "UINT4": (4, False),
    "INT2": (2, True),
    "UINT2": (2, False),
}

_E8M0_TOP = 254  # largest exponent field of a number; 255 is NaN


def cast(g: Builder, x: Value, *, to: int, saturate: int = 1, round_mode: str = "up") -> Value:
    """Cast: `to` is the number of an ONNX element type."""
    return convert(g, x, onnx_ir.DataType(to), bool(saturate), round_mode)


def cast_like(
    g: Builder, x: Value, like: Value, *, saturate: int = 1, round_mode: str = "up"
) -> Value:
    """CastLike: to the element type of `like`, as the file declares it."""
    declared = g.onnx_dtypes[1] if len(g.onnx_dtypes) > 1 else None
    if declared is None:
        return _plain_cast(g, x, g.dtype(like), bool(saturate))
    return convert(g, x, declared, bool(saturate), round_mode)


def convert(
    g: Builder, x: Value, to: onnx_ir.DataType, saturate: bool = True, round_mode: str = "up"
) -> Value:
    """`x` with elements of an ONNX type.

    Raises:
        Unsupported: from or to strings.
    """
    if to.name in _SMALL_INTEGERS:
        return _to_small_integer(g, x, *_SMALL_INTEGERS[to.name])
    if to == onnx_ir.DataType.FLOAT4E2M1:
        return _to_float4(g, x)
    if to == onnx_ir.DataType.FLOAT8E8M0:
        return _to_e8m0(g, x, saturate, round_mode)
    return _plain_cast(g, x, torch_dtype(to), saturate)


def _plain_cast(g: Builder, x: Value, dtype: torch.dtype, saturate: bool) -> Value:
    if g.dtype(x) == dtype:
        return x
    if dtype in _FLOAT8 and saturate:
        if not g.dtype(x).is_floating_point or g.dtype(x) in _FLOAT8:
            x = g.call(aten.to.dtype, x, torch.float32)
        # Infinities become the largest number as well; NaN passes through clamp.
        largest = torch.finfo(dtype).max
        x = g.call(aten.clamp.default, x, -largest, largest)
    elif dtype in _OVERFLOW:
        x = _beyond_to_nan(g, x, *_OVERFLOW[dtype])
    return g.call(aten.to.dtype, x, dtype)


def _beyond_to_nan(g: Builder, x: Value, limit: float, itself: bool) -> Value:
    """Versions of torch differ in what they make of numbers that are too large."""
    x = x if g.dtype(x).is_floating_point else g.call(aten.to.dtype, x, torch.float32)
    compare = aten.ge.Scalar if itself else aten.gt.Scalar
    beyond = g.call(compare, g.call(aten.abs.default, x), limit)
    return _where_nan(g, beyond, x)


def _to_small_integer(g: Builder, x: Value, bits: int, signed: bool) -> Value:
    """The lowest bits of the integer part; what does not fit loses its higher bits."""
    if g.dtype(x) in _FLOAT8:
        x = g.call(aten.to.dtype, x, torch.float32)
    whole = x if g.dtype(x) == torch.int64 else g.call(aten.to.dtype, x, torch.int64)
    low = g.call(aten.bitwise_and.Scalar, whole, (1 << bits) - 1)
    if not signed:
        return g.call(aten.to.dtype, low, torch.uint8)
    # Flipping the sign bit and taking it away again extends it: 0b1000 -> 0b0000 - 8.
    sign = 1 << (bits - 1)
    flipped = g.call(aten.bitwise_xor.Scalar, low, sign)
    return g.call(aten.to.dtype, g.call(aten.sub.Scalar, flipped, sign), torch.int8)


def _to_float4(g: Builder, x: Value) -> Value:
    """Round to 0, .5, 1, 1.5, 2, 3, 4, 6 and their negatives, ties to the even one.

    The distance of neighbours is 1/2 below 2, 1 below 4, 2 above. The type has no NaN: zero.
    """
    x = _plain_cast(g, x, torch.float32, saturate=False)
    number = g.call(aten.nan_to_num.default, x, 0.0, 6.0, -6.0)
    size = g.call(aten.clamp.default, g.call(aten.abs.default, number), None, 6.0)
    rounded = _rounded(g, size, 2.0)
    for bound, step in ((4.0, 1.0), (2.0, 0.5)):
        finer = g.call(aten.lt.Scalar, size, bound)
        rounded = g.call(aten.where.self, finer, _rounded(g, size, step), rounded)
    return g.call(aten.copysign.Tensor, rounded, number)


def _rounded(g: Builder, x: Value, step: float) -> Value:
    steps = g.call(aten.round.default, g.call(aten.div.Scalar, x, step))
    return g.call(aten.mul.Scalar, steps, step)


def _to_e8m0(g: Builder, x: Value, saturate: bool, round_mode: str) -> Value:
    """A power of two from 2^-127 to 2^127, or NaN: the exponent field of a float32.

    Zero and what is smaller than 2^-127 become 2^-127 when saturating, else NaN.
    """
    x = _plain_cast(g, x, torch.float32, saturate=False)
    bits = g.call(aten.view.dtype, x, torch.int32)
    field = g.call(aten.bitwise_right_shift.Tensor_Scalar, bits, 23)
    field = g.call(aten.bitwise_and.Scalar, field, 255)
    fraction = _fraction(g, bits, field)
    field = g.call(aten.add.Tensor, field, _carry(g, fraction, round_mode))
    largest = 2.0 ** (_E8M0_TOP - 127)
    shifted = g.call(aten.sub.Scalar, g.call(aten.to.dtype, field, torch.float32), 127.0)
    power = g.call(aten.exp2.default, shifted)
    if saturate:
        power = g.call(aten.clamp.default, power, 2.0**-127, largest)
        return _where_nan(g, g.call(aten.isnan.default, x), power)
    beyond = g.call(aten.gt.Scalar, power, largest)
    below = g.call(aten.lt.Scalar, x, 2.0**-127)
    nan = g.call(aten.isnan.default, x)
    outside = g.call(aten.logical_or.default, g.call(aten.logical_or.default, beyond, below), nan)
    return _where_nan(g, outside, power)


def _fraction(g: Builder, bits: Value, field: Value) -> Value:
    """23 bits of what a float32 is more than the power of two below it.

    The field 0 stands for numbers without a leading one: there 2^-127 is the upper half.
    """
    fraction = g.call(aten.bitwise_and.Scalar, bits, (1 << 23) - 1)
    above = g.call(aten.mul.Scalar, g.call(aten.sub.Scalar, fraction, 1 << 22), 2)
    above = g.call(aten.clamp.default, above, 0)
    return g.call(aten.where.self, g.call(aten.eq.Scalar, field, 0), above, fraction)


def _carry(g: Builder, fraction: Value, round_mode: str) -> Value:
    """One where rounding goes up to the next power of two."""
    half = 1 << 22
    limits: dict[str, Callable[[], Any]] = {
        "up": lambda: g.call(aten.gt.Scalar, fraction, 0),
        "down": lambda: g.call(aten.gt.Scalar, fraction, 1 << 23),
        "nearest": lambda: g.call(aten.ge.Scalar, fraction, half),
    }
    if round_mode not in limits:
        raise Unsupported(f"the round_mode {round_mode!r} does not exist")
    return g.call(aten.to.dtype, limits[round_mode](), torch.int32)


def _where_nan(g: Builder, condition: Value, x: Value) -> Value:
    return g.call(aten.masked_fill.Scalar, x, condition, float("nan"))


TABLE: dict[str, Translation] = {
    "Cast": cast,
    "CastLike": cast_like,
}
