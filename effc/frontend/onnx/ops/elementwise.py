"""Operators that act element by element."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import fx

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.elements import torch_dtype
from effc.frontend.onnx.ops import unsigned
from effc.frontend.onnx.ops.operands import number, operand
from effc.frontend.onnx.ops.unsigned import by_bits, by_keys, cast
from effc.frontend.onnx.table import Translation, op
from effc.frontend.onnx.values import Mismatch, Unsupported, Value

aten = torch.ops.aten


def is_float(g: Builder, x: Value) -> bool:
    """Whether the elements are floating-point numbers."""
    return g.dtype(x).is_floating_point


# Arithmetic


def commutative(target: Any) -> Translation:
    """An operation that takes its operands in either order; a number is the second."""

    def translate(g: Builder, a: Value, b: Value) -> Value:
        left, right = operand(g, a, b), operand(g, b, a)
        return g.call(target, b, left) if left is not a else g.call(target, a, right)

    return translate


def subtract(g: Builder, a: Value, b: Value) -> Value:
    """`aten.sub`; a number minus a tensor is `aten.rsub`."""
    value = number(g, a, b) if isinstance(a, torch.Tensor) else operand(g, a, b)
    if value is not None and value is not a:
        return g.call(aten.rsub.Scalar, b, value)
    return g.call(aten.sub.Tensor, a, operand(g, b, a))


def divide(g: Builder, a: Value, b: Value) -> Value:
    """Integers are rounded to zero."""
    if is_float(g, a):
        value = number(g, a, b)
        if value == 1.0 and isinstance(b, fx.Node):
            return g.call(aten.reciprocal.default, b)
        return g.call(aten.div.Tensor, a, b)
    if g.dtype(a) == torch.uint64:
        return unsigned.divide(g, a, b)
    return _divide_integers(g, a, b)


def _truncate(g: Builder, a: Value, b: Value) -> Value:
    return g.call(aten.div.Tensor_mode, a, b, rounding_mode="trunc")


_divide_integers = by_keys(_truncate)


def modulo(g: Builder, a: Value, b: Value, fmod: int = 0) -> Value:
    """The sign of the result is the divisor's, or with `fmod` the dividend's."""
    if g.dtype(a) == torch.uint64:
        product = _multiply(g, unsigned.divide(g, a, b), b)
        return _subtract(g, a, product)
    return _modulo(g, a, b, fmod=fmod)


@by_keys
def _modulo(g: Builder, a: Value, b: Value, fmod: int = 0) -> Value:
    return g.call(aten.fmod.Tensor if fmod else aten.remainder.Tensor, a, b)


_multiply = by_bits(commutative(aten.mul.Tensor))
_subtract = by_bits(subtract)


def power(g: Builder, base: Value, exponent: Value) -> Value:
    """The result has the elements of the base, whatever those of the exponent."""
    value, dtype = number(g, exponent, base), g.dtype(base)
    if unsigned.lacks_kernels(g, exponent):
        exponent = cast(g, exponent, dtype if dtype.is_floating_point else torch.int64)
    if value is not None and (dtype.is_floating_point or isinstance(value, int)):
        return cast(g, g.call(aten.pow.Tensor_Scalar, base, value), dtype)
    known = number(g, base, exponent)
    if known is not None and g.dtype(exponent) == dtype and isinstance(exponent, fx.Node):
        return g.call(aten.pow.Scalar, known, exponent)
    return cast(g, g.call(aten.pow.Tensor_Tensor, base, exponent), dtype)


def clip(g: Builder, x: Value, min: Any = None, max: Any = None) -> Value:
    """Bounds are attributes before opset 11, inputs from then on."""
    if isinstance(min, fx.Node) or isinstance(max, fx.Node):
        return g.call(aten.clamp.Tensor, x, min, max)
    low, high = (None if b is None else b.item() if isinstance(b, torch.Tensor) else b
                 for b in (min, max))  # fmt: skip
    return x if low is None and high is None else g.call(aten.clamp.default, x, low, high)


def sign(g: Builder, x: Value) -> Value:
    """Unsigned integers are 0 or positive."""
    if unsigned.lacks_kernels(g, x):
        return cast(g, g.call(aten.ne.Scalar, unsigned.bits(g, x), 0), g.dtype(x))
    return g.call(aten.sign.default, x)


def absolute(g: Builder, x: Value) -> Value:
    """Unsigned integers are their own absolute values."""
    return x if unsigned.lacks_kernels(g, x) else g.call(aten.abs.default, x)


# Bits


def bit_shift(g: Builder, x: Value, count: Value, direction: str = "") -> Value:
    """Shift bits; those that come in are zeros."""
    if direction not in ("LEFT", "RIGHT"):
        raise Mismatch(f"a shift is LEFT or RIGHT, not {direction!r}")
    if direction == "LEFT":
        return _shift_left(g, x, count)
    if g.dtype(x) == torch.uint64:
        return unsigned.shift_right(g, x, count)
    return _shift_right(g, x, count)


_shift_left = by_bits(op(aten.bitwise_left_shift.Tensor))
_shift_right = by_keys(op(aten.bitwise_right_shift.Tensor))


def bit_cast(g: Builder, x: Value, to: int = 0) -> Value:
    """The same bits as elements of another type."""
    import onnx_ir

    dtype, own = torch_dtype(onnx_ir.DataType(to)), g.dtype(x)
    if dtype.itemsize != own.itemsize:
        raise Unsupported(f"{own} and {dtype} have elements of different sizes")
    return x if dtype == own else g.call(aten.view.dtype, x, dtype)


# Any number of inputs


def chain(translation: Callable[..., Any]) -> Callable[..., Any]:
    """An operator of two operands, for any number of them."""

    def translate(g: Builder, *inputs: Value) -> Value:
        return reduce(lambda a, b: translation(g, a, b), inputs)

    return translate


def mean(g: Builder, *inputs: Value) -> Value:
    """The sum over the count."""
    total = chain(commutative(aten.add.Tensor))(g, *inputs)
    return total if len(inputs) == 1 else g.call(aten.div.Tensor, total, len(inputs))


def extreme(tensors: Any, limit: Any) -> Callable[..., Value]:
    """The larger or the smaller of two; `limit` takes a number."""

    def translate(g: Builder, a: Value, b: Value) -> Value:
        for x, other in ((a, b), (b, a)):
            value = number(g, other, x)
            if value is not None and not math.isnan(value) and isinstance(x, fx.Node):
                return g.call(limit, x, value)
        return g.call(tensors, a, b)

    return translate


_FUNCTIONS = """
acos acosh asin asinh atan atanh ceil cos cosh erf exp floor log neg reciprocal round sin sinh
sqrt tan tanh
"""

TABLE: dict[str, Translation] = {
    **{name.capitalize(): op(getattr(aten, name).default) for name in _FUNCTIONS.split()},
    "Abs": absolute,
    "Add": by_bits(commutative(aten.add.Tensor)),
    "BitCast": bit_cast,
    "BitShift": bit_shift,
    "BitwiseAnd": by_bits(op(aten.bitwise_and.Tensor)),
    "BitwiseNot": by_bits(op(aten.bitwise_not.default)),
    "BitwiseOr": by_bits(op(aten.bitwise_or.Tensor)),
    "BitwiseXor": by_bits(op(aten.bitwise_xor.Tensor)),
    "Clip": by_keys(clip),
    "Div": divide,
    "Max": chain(by_keys(extreme(aten.maximum.default, aten.clamp_min.default))),
    "Mean": mean,
    "Min": chain(by_keys(extreme(aten.minimum.default, aten.clamp_max.default))),
    "Mod": modulo,
    "Mul": _multiply,
    "Pow": power,
    "Sign": sign,
    "Sub": _subtract,
    "Sum": chain(commutative(aten.add.Tensor)),
}
