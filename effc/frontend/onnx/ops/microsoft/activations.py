"""Activations, alone and fused with what stands before them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.ops.microsoft.heads import added, cut, head_width
from effc.frontend.onnx.values import Unsupported, Value

aten = torch.ops.aten


def gelu(g: Builder, x: Value) -> Value:
    """com.microsoft.Gelu: with the error function."""
    return g.call(aten.gelu.default, x)


def fast_gelu(g: Builder, x: Value, bias: Value = None) -> Value:
    """com.microsoft.FastGelu: with the hyperbolic tangent."""
    return g.call(aten.gelu.default, added(g, x, bias), approximate="tanh")


def bias_gelu(g: Builder, x: Value, bias: Value) -> Value:
    """com.microsoft.BiasGelu: gelu(x + bias)."""
    return gelu(g, added(g, x, bias))


def bias_split_gelu(g: Builder, x: Value, bias: Value) -> Value:
    """com.microsoft.BiasSplitGelu: of x + bias, the left half times gelu of the right half."""
    total = added(g, x, bias)
    left, right = cut(g, total, [head_width(g, total, 2)] * 2)
    return g.call(aten.mul.Tensor, left, gelu(g, right))


def bias_add(g: Builder, x: Value, bias: Value, skip: Value) -> Value:
    """com.microsoft.BiasAdd: x + bias + skip."""
    return added(g, x, bias, skip)


def quick_gelu(g: Builder, x: Value, *, alpha: float = 1.702) -> Value:
    """com.microsoft.QuickGelu: x * sigmoid(alpha * x); alpha = 1 is SiLU."""
    if alpha == 1.0:
        return g.call(aten.silu.default, x)
    scaled = g.call(aten.mul.Scalar, x, alpha)
    return g.call(aten.mul.Tensor, x, g.call(aten.sigmoid.default, scaled))


def activated(g: Builder, x: Value, activation: str, parameters: list[float]) -> Value:
    """x through the activation that a fused operator names.

    Raises:
        Unsupported: it is none of those that ONNX Runtime fuses.
    """
    if not activation:
        return x
    if activation not in _FUSED:
        raise Unsupported(f"activation = {activation!r}")
    return _FUSED[activation](g, x, *parameters)


def _hard_sigmoid(g: Builder, x: Value, alpha: float = 0.2, beta: float = 0.5) -> Value:
    line = g.call(aten.add.Scalar, g.call(aten.mul.Scalar, x, alpha), beta)
    return g.call(aten.clamp.default, line, 0.0, 1.0)


def _plain(target: Any) -> Callable[..., Value]:
    return lambda g, x, *parameters: g.call(target, x, *parameters)


_FUSED: dict[str, Callable[..., Value]] = {
    "Clip": _plain(aten.clamp.default),
    "HardSigmoid": _hard_sigmoid,
    "LeakyRelu": lambda g, x, slope=0.01: g.call(aten.leaky_relu.default, x, slope),
    "Relu": _plain(aten.relu.default),
    "Sigmoid": _plain(aten.sigmoid.default),
    "Tanh": _plain(aten.tanh.default),
}
