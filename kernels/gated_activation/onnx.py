"""`effc::gated_activation` in ONNX: standard activations, and a product."""

from __future__ import annotations

import math

from effc.kernels.onnx import OnnxGraph, Value


def translate(g: OnnxGraph, gate: Value, up: Value, *, activation: str) -> Value:
    """act(gate) * up."""
    if activation == "silu":
        active = g.op("Mul", gate, g.op("Sigmoid", gate))
    elif activation == "relu":
        active = g.op("Relu", gate)
    elif activation == "sigmoid":
        active = g.op("Sigmoid", gate)
    elif g.opset >= 20:
        active = g.op("Gelu", gate, approximate="tanh" if activation == "gelu_tanh" else "none")
    else:
        active = _gelu(g, gate, activation == "gelu_tanh")
    return g.op("Mul", active, up)


def _gelu(g: OnnxGraph, x: Value, tanh: bool) -> Value:
    """Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, section 2."""

    def times(y: Value, factor: float) -> Value:
        return g.op("Mul", y, g.scalar(factor, x))

    if tanh:
        cube = times(g.op("Mul", g.op("Mul", x, x), x), 0.044715)
        inner = g.op("Tanh", times(g.op("Add", x, cube), math.sqrt(2 / math.pi)))
    else:
        inner = g.op("Erf", times(x, math.sqrt(0.5)))
    return g.op("Mul", times(x, 0.5), g.op("Add", inner, g.scalar(1.0, x)))
