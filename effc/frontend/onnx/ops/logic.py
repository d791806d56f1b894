"""Comparisons, truth values, and what is chosen by them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.ops.operands import number, operand
from effc.frontend.onnx.ops.unsigned import by_keys, cast
from effc.frontend.onnx.table import Translation, op
from effc.frontend.onnx.values import Sizes, Value

aten = torch.ops.aten

_WITH_SCALAR = {
    aten.eq.Tensor: (aten.eq.Scalar, aten.eq.Scalar),
    aten.lt.Tensor: (aten.lt.Scalar, aten.gt.Scalar),
    aten.gt.Tensor: (aten.gt.Scalar, aten.lt.Scalar),
    aten.le.Tensor: (aten.le.Scalar, aten.ge.Scalar),
    aten.ge.Tensor: (aten.ge.Scalar, aten.le.Scalar),
}


def compare(target: Any) -> Translation:
    """A comparison; a number on the left goes to the right."""
    scalar, swapped = _WITH_SCALAR[target]

    def translate(g: Builder, a: Value, b: Value) -> Value:
        for x, other, found in ((a, b, scalar), (b, a, swapped)):
            value = operand(g, other, x) if isinstance(other, Sizes) else number(g, other, x)
            if value is not None and value is not other:
                return g.call(found, x, value)
        return g.call(target, a, b)

    return by_keys(translate, restore=False)


def junction(target: Any, neutral: bool) -> Translation:
    """A connective of truth values; the neutral one changes nothing."""

    def translate(g: Builder, a: Value, b: Value) -> Value:
        for x, other in ((a, b), (b, a)):
            if number(g, other, x) is neutral:
                return x
        return g.call(target, a, b)

    return translate


# What a tensor of Python numbers has.
_TYPES_OF_NUMBERS = (torch.float32, torch.int64, torch.bool)


def where(g: Builder, condition: Value, a: Value, b: Value) -> Value:
    """A choice between tensors, or between a tensor and a number."""
    left, right = number(g, a, condition, b), number(g, b, condition, a)
    if right is not None and left is None and isinstance(a, fx.Node):
        return g.call(aten.where.ScalarOther, condition, a, right)
    if left is not None and right is None and isinstance(b, fx.Node):
        return g.call(aten.where.ScalarSelf, condition, left, b)
    if left is not None and right is not None and g.dtype(a) in _TYPES_OF_NUMBERS:
        return g.call(aten.where.Scalar, condition, left, right)
    return g.call(aten.where.self, condition, a, b)


def is_infinite(g: Builder, x: Value, detect_negative: int = 1, detect_positive: int = 1) -> Value:
    """One of the infinities, or both."""
    x = widened(g, x)
    if detect_negative and detect_positive:
        return g.call(aten.isinf.default, x)
    if not detect_negative and not detect_positive:
        return g.call(aten.zeros_like.default, x, dtype=torch.bool)
    return g.call(aten.eq.Scalar, x, math.inf if detect_positive else -math.inf)


def is_not_a_number(g: Builder, x: Value) -> Value:
    """NaN is the only one."""
    return g.call(aten.isnan.default, widened(g, x))


def widened(g: Builder, x: Value) -> Value:
    """Floating-point numbers of 8 bits as float32, which has all of them."""
    dtype = g.dtype(x)
    return cast(g, x, torch.float32) if dtype.is_floating_point and dtype.itemsize == 1 else x


TABLE: dict[str, Translation] = {
    "And": junction(aten.logical_and.default, neutral=True),
    "Equal": compare(aten.eq.Tensor),
    "Greater": compare(aten.gt.Tensor),
    "GreaterOrEqual": compare(aten.ge.Tensor),
    "IsInf": is_infinite,
    "IsNaN": is_not_a_number,
    "Less": compare(aten.lt.Tensor),
    "LessOrEqual": compare(aten.le.Tensor),
    "Not": op(aten.logical_not.default),
    "Or": junction(aten.logical_or.default, neutral=False),
    "Where": where,
    "Xor": op(aten.logical_xor.default),
}
