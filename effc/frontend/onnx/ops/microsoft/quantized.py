"""Operators on 8-bit integers: a real operator between dequantizing and quantizing again."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import torch

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.ops.microsoft.standard import standard
from effc.frontend.onnx.ops.quantization import (
    dynamic_quantize_linear,
    real,
    rescaled,
    whole,
)
from effc.frontend.onnx.values import Mismatch, Value

aten = torch.ops.aten


def _unary(function: Callable[..., Value]) -> Callable[..., Value]:
    """X, its scale and zero point, and those of the result."""

    def translate(
        g: Builder,
        x: Value,
        x_scale: Value,
        x_zero: Value,
        y_scale: Value,
        y_zero: Value = None,
        **attributes: Any,
    ) -> Value:
        found = function(g, real(g, x, x_scale, x_zero), **attributes)
        return whole(g, found, y_scale, y_zero, g.dtype(x))

    return translate


def _binary(target: Any) -> Callable[..., Value]:
    def translate(
        g: Builder,
        a: Value,
        a_scale: Value,
        a_zero: Value,
        b: Value,
        b_scale: Value,
        b_zero: Value,
        c_scale: Value,
        c_zero: Value = None,
    ) -> Value:
        found = g.call(target, real(g, a, a_scale, a_zero), real(g, b, b_scale, b_zero))
        return whole(g, found, c_scale, c_zero, g.dtype(a))

    return translate


def _leaky_relu(g: Builder, x: Value, alpha: float = 0.01) -> Value:
    return g.call(aten.leaky_relu.default, x, alpha)


def _sigmoid(g: Builder, x: Value) -> Value:
    return g.call(aten.sigmoid.default, x)


def _softmax(g: Builder, x: Value, opset: int, axis: int = -1) -> Value:
    """Before version 13, over all dimensions from `axis` on."""
    axis %= g.rank(x)
    if opset >= 13:
        return g.call(aten.softmax.int, x, axis)
    shape = g.shape(x)
    rows = reduce(partial(g.arith, operator.mul), shape[:axis], 1)
    flat = g.call(aten.softmax.int, g.call(aten.reshape.default, x, [rows, -1]), 1)
    return g.call(aten.reshape.default, flat, shape)


def _pooled(op_type: str) -> Callable[..., Value]:
    def pool(g: Builder, x: Value, channels_last: int = 0, **attributes: Any) -> Any:
        last = g.rank(x) - 1
        if not channels_last:
            return standard(op_type)(g, x, **attributes)
        inner = list(range(1, last))
        turned = g.call(aten.permute.default, x, [0, last, *inner])
        found = standard(op_type)(g, turned, **attributes)
        return g.call(aten.permute.default, found, [0, *(i + 1 for i in inner), 1])

    return pool


def qlinear_concat(g: Builder, y_scale: Value, y_zero: Value, *inputs: Value, axis: int) -> Value:
    """com.microsoft.QLinearConcat: the inputs are tensor, scale and zero point in turn."""
    if len(inputs) % 3:
        raise Mismatch(f"{len(inputs)} inputs; they are tensor, scale and zero point in turn")
    triples = zip(inputs[::3], inputs[1::3], inputs[2::3], strict=True)
    parts = [real(g, x, scale, zero) for x, scale, zero in triples]
    joined = g.call(aten.cat.default, parts, axis)
    return whole(g, joined, y_scale, y_zero, g.dtype(y_zero))


def qlinear_where(
    g: Builder,
    condition: Value,
    x: Value,
    x_scale: Value,
    x_zero: Value,
    y: Value,
    y_scale: Value,
    y_zero: Value,
    z_scale: Value,
    z_zero: Value,
) -> Value:
    """com.microsoft.QLinearWhere: Where, with a scale and a zero point for each tensor."""
    left, right = real(g, x, x_scale, x_zero), real(g, y, y_scale, y_zero)
    return whole(g, g.call(aten.where.self, condition, left, right), z_scale, z_zero, g.dtype(x))


def qgemm(
    g: Builder,
    a: Value,
    a_scale: Value,
    a_zero: Value,
    b: Value,
    b_scale: Value,
    b_zero: Value,
    c: Value = None,
    y_scale: Value = None,
    y_zero: Value = None,
    *,
    alpha: float = 1.0,
    transA: int = 0,  # noqa: N803, the names of the operator
    transB: int = 0,  # noqa: N803
) -> Value:
    """com.microsoft.QGemm: c is int32 in units of a_scale * b_scale; real without a y_scale."""
    left = g.call(aten.permute.default, a, [1, 0]) if transA else a
    right = g.call(aten.permute.default, b, [1, 0]) if transB else b
    total = standard("MatMulInteger")(g, left, right, a_zero, b_zero)
    total = total if c is None else g.call(aten.add.Tensor, total, c)
    if alpha != 1.0:
        a_scale = g.call(aten.mul.Scalar, a_scale, alpha)
    if y_scale is not None:
        return rescaled(g, total, a_scale, b_scale, y_scale, y_zero)
    return real(g, total, g.call(aten.mul.Tensor, a_scale, b_scale))


def dynamic_quantize_matmul(
    g: Builder,
    a: Value,
    b: Value,
    b_scale: Value,
    b_zero: Value = None,
    bias: Value = None,
) -> Value:
    """com.microsoft.DynamicQuantizeMatMul: a, quantized to its own range, times integers b."""
    integers, scale, zero = dynamic_quantize_linear(g, a)
    return matmul_integer_to_float(g, integers, b, scale, b_scale, zero, b_zero, bias)


def matmul_integer_to_float(
    g: Builder,
    a: Value,
    b: Value,
    a_scale: Value,
    b_scale: Value,
    a_zero: Value = None,
    b_zero: Value = None,
    bias: Value = None,
) -> Value:
    """com.microsoft.MatMulIntegerToFloat: a product of integers times both scales, plus bias."""
    total = standard("MatMulInteger")(g, a, b, a_zero, b_zero)
    found = real(g, total, g.call(aten.mul.Tensor, a_scale, b_scale))
    return found if bias is None else g.call(aten.add.Tensor, found, bias)


TABLE: dict[str, Callable[..., Any]] = {
    "DynamicQuantizeMatMul": dynamic_quantize_matmul,
    "MatMulIntegerToFloat": matmul_integer_to_float,
    "QGemm": qgemm,
    "QLinearAdd": _binary(aten.add.Tensor),
    "QLinearAveragePool": _unary(_pooled("AveragePool")),
    "QLinearConcat": qlinear_concat,
    "QLinearConv": standard("QLinearConv"),
    "QLinearGlobalAveragePool": _unary(_pooled("GlobalAveragePool")),
    "QLinearLeakyRelu": _unary(_leaky_relu),
    "QLinearMul": _binary(aten.mul.Tensor),
    "QLinearSigmoid": _unary(_sigmoid),
    "QLinearSoftmax": _unary(_softmax),
    "QLinearWhere": qlinear_where,
}
