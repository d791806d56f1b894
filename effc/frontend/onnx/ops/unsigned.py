"""Unsigned integers of 16, 32 and 64 bits, for which torch has few kernels.

Adding, multiplying, moving about: the signed integers with the same bits give the right bits.
Comparing and dividing: a signed integer with the same order stands for each number. Numbers of 16
and 32 bits fit a wider type; of those with 64 bits the highest bit is flipped, which moves the
range 0 .. 2^64-1 down to -2^63 .. 2^63-1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.values import Unsupported, Value

aten = torch.ops.aten

SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}
_WIDER = {torch.uint16: torch.int32, torch.uint32: torch.int64}
_HIGHEST_BIT = torch.iinfo(torch.int64).min


def cast(g: Builder, x: Value, dtype: torch.dtype) -> Any:
    """A tensor with other elements; itself where it has them already."""
    return x if known_dtype(g, x) == dtype else g.call(aten.to.dtype, x, dtype)


def known_dtype(g: Builder, x: Value) -> torch.dtype | None:
    """The element type, None when it is not known (or there is no tensor)."""
    try:
        return g.dtype(x)
    except Unsupported:
        return None


def lacks_kernels(g: Builder, x: Value) -> bool:
    """Whether a value has elements that torch hardly computes with."""
    return known_dtype(g, x) in SIGNED


def bits(g: Builder, x: Value) -> Any:
    """The signed integers with the bits of unsigned ones; anything else as it is."""
    signed = SIGNED.get(known_dtype(g, x))  # type: ignore[arg-type]
    return x if signed is None else g.call(aten.view.dtype, x, signed)


def keys(g: Builder, x: Value) -> Any:
    """Signed integers in the order of unsigned ones; anything else as it is."""
    dtype = known_dtype(g, x)
    if dtype in _WIDER:
        return cast(g, x, _WIDER[dtype])
    if dtype != torch.uint64:
        return x
    return g.call(aten.bitwise_xor.Scalar, bits(g, x), _HIGHEST_BIT)


def from_keys(g: Builder, key: Any, dtype: torch.dtype) -> Any:
    """The unsigned integers that `keys` stand for."""
    if dtype != torch.uint64:
        return cast(g, key, dtype)
    flipped = g.call(aten.bitwise_xor.Scalar, key, _HIGHEST_BIT)
    return g.call(aten.view.dtype, flipped, dtype)


def by_bits(translation: Callable[..., Any]) -> Callable[..., Any]:
    """Make a translation serve unsigned integers: it sees signed ones with the same bits."""

    @wraps(translation)
    def translate(g: Builder, *inputs: Value, **attributes: Any) -> Any:
        dtype = _unsigned(g, inputs)
        if dtype is None:
            return translation(g, *inputs, **attributes)
        result = translation(g, *[bits(g, x) for x in inputs], **attributes)
        return _map(result, lambda part: g.call(aten.view.dtype, part, dtype))

    return translate


def by_keys(translation: Callable[..., Any], *, restore: bool = True) -> Callable[..., Any]:
    """Make a translation serve unsigned integers: it sees signed ones in the same order.

    Args:
        translation: compares its inputs and hands some of them out.
        restore: whether the result is one of the keys (and not a truth value or an index).
    """

    @wraps(translation)
    def translate(g: Builder, *inputs: Value, **attributes: Any) -> Any:
        dtype = _unsigned(g, inputs)
        if dtype is None:
            return translation(g, *inputs, **attributes)
        result = translation(g, *[keys(g, x) for x in inputs], **attributes)
        return from_keys(g, result, dtype) if restore else result

    return translate


def divide(g: Builder, a: Value, b: Value) -> Any:
    """Quotients of unsigned integers of 64 bits.

    A divisor of 2^63 or more fits once or not at all. Others are signed numbers too: halving the
    dividend makes it one, doubling the quotient makes up for it, and what is still missing is 0
    or 1 (Hacker's Delight, 9-3).
    """
    whole, divisor = bits(g, a), bits(g, b)
    half = _shift_right_once(g, whole)
    quotient = g.call(aten.div.Tensor_mode, half, divisor, rounding_mode="trunc")
    doubled = g.call(aten.bitwise_left_shift.Tensor_Scalar, quotient, 1)
    rest = g.call(aten.sub.Tensor, whole, g.call(aten.mul.Tensor, doubled, divisor))
    once = g.call(aten.ge.Tensor, _flipped(g, rest), _flipped(g, divisor))
    exact = g.call(aten.add.Tensor, doubled, cast(g, once, torch.int64))
    fits = g.call(aten.ge.Tensor, keys(g, a), keys(g, b))
    huge = g.call(aten.lt.Scalar, divisor, 0)
    found = g.call(aten.where.self, huge, cast(g, fits, torch.int64), exact)
    return g.call(aten.view.dtype, found, torch.uint64)


def shift_right(g: Builder, x: Value, count: Value) -> Any:
    """Shift unsigned integers of 64 bits; zeros come in from above."""
    number, by = bits(g, x), bits(g, count)
    less = g.call(aten.sub.Tensor, by, 1)
    shifted = g.call(aten.bitwise_right_shift.Tensor, _shift_right_once(g, number), less)
    stays = g.call(aten.eq.Scalar, by, 0)
    return g.call(aten.view.dtype, g.call(aten.where.self, stays, number, shifted), torch.uint64)


def _shift_right_once(g: Builder, number: Value) -> Any:
    halved = g.call(aten.bitwise_right_shift.Tensor_Scalar, number, 1)
    return g.call(aten.bitwise_and.Scalar, halved, torch.iinfo(torch.int64).max)


def _flipped(g: Builder, number: Value) -> Any:
    return g.call(aten.bitwise_xor.Scalar, number, _HIGHEST_BIT)


def _unsigned(g: Builder, inputs: tuple[Value, ...]) -> torch.dtype | None:
    found = [known_dtype(g, x) for x in inputs]
    return next((dtype for dtype in found if dtype in SIGNED), None)


def _map(result: Any, function: Callable[[Any], Any]) -> Any:
    return (
        tuple(function(part) for part in result) if isinstance(result, tuple) else function(result)
    )
