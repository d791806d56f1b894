"""Activations, softmaxes and dropout."""

from __future__ import annotations

import torch

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.table import Translation, op
from effc.frontend.onnx.values import Unsupported, Value

aten = torch.ops.aten

# Above this log(1 + exp(x)) is x in double precision; aten's own limit shows there.
_SOFTPLUS_IS_LINEAR = 40


def leaky_relu(g: Builder, x: Value, *, alpha: float = 0.01) -> Value:
    """x where it is not negative, alpha * x elsewhere."""
    return g.call(aten.leaky_relu.default, x, alpha)


def prelu(g: Builder, x: Value, slope: Value) -> Value:
    """As `leaky_relu`; the slope is a tensor that broadcasts to x.

    Before opset 7 it was one number per channel, and files from then still have it so.
    """
    if g.rank(slope) == 1 and g.rank(x) > 2:
        count = g.size(slope, 0)
        if count == g.size(x, 1) and count not in (1, g.size(x, -1)):
            slope = g.call(aten.reshape.default, slope, [count, *[1] * (g.rank(x) - 2)])
    negative = g.call(aten.lt.Scalar, x, 0)
    return g.call(aten.where.self, negative, g.call(aten.mul.Tensor, x, slope), x)


def elu(g: Builder, x: Value, *, alpha: float = 1.0) -> Value:
    """x where it is positive, alpha * (exp(x) - 1) elsewhere."""
    return g.call(aten.elu.default, x, alpha)


def selu(
    g: Builder, x: Value, *, alpha: float = 1.6732632423543772, gamma: float = 1.0507009873554805
) -> Value:
    """`elu`, times gamma."""
    return g.call(aten.elu.default, x, alpha, gamma)


def celu(g: Builder, x: Value, *, alpha: float = 1.0) -> Value:
    """max(0, x) + min(0, alpha * (exp(x / alpha) - 1))."""
    return g.call(aten.celu.default, x, alpha)


def hard_sigmoid(g: Builder, x: Value, *, alpha: float = 0.2, beta: float = 0.5) -> Value:
    """alpha * x + beta, kept between 0 and 1."""
    scaled = g.call(aten.mul.Scalar, x, alpha)
    return g.call(aten.clamp.default, g.call(aten.add.Scalar, scaled, beta), 0, 1)


def softplus(g: Builder, x: Value) -> Value:
    """log(1 + exp(x))."""
    return g.call(aten.softplus.default, x, 1, _SOFTPLUS_IS_LINEAR)


def softsign(g: Builder, x: Value) -> Value:
    """x / (1 + |x|)."""
    size = g.call(aten.add.Scalar, g.call(aten.abs.default, x), 1)
    return g.call(aten.div.Tensor, x, size)


def thresholded_relu(g: Builder, x: Value, *, alpha: float = 1.0) -> Value:
    """x where it is above alpha, else 0."""
    return g.call(aten.threshold.default, x, alpha, 0)


def shrink(g: Builder, x: Value, *, bias: float = 0.0, lambd: float = 0.5) -> Value:
    """x drawn towards zero by the bias where it is beyond lambd on either side, else 0."""
    dtype = g.dtype(x)
    zeros = g.call(aten.zeros_like.default, x)
    raised, lowered = g.call(aten.add.Scalar, x, bias), g.call(aten.sub.Scalar, x, bias)
    if not dtype.is_floating_point:
        raised, lowered = (g.call(aten.to.dtype, v, dtype) for v in (raised, lowered))
    inner = g.call(aten.where.self, g.call(aten.gt.Scalar, x, lambd), lowered, zeros)
    return g.call(aten.where.self, g.call(aten.lt.Scalar, x, -lambd), raised, inner)


def swish(g: Builder, x: Value, *, alpha: float = 1.0) -> Value:
    """x * sigmoid(alpha * x)."""
    if alpha == 1.0:
        return g.call(aten.silu.default, x)
    gate = g.call(aten.sigmoid.default, g.call(aten.mul.Scalar, x, alpha))
    return g.call(aten.mul.Tensor, x, gate)


def swiglu(g: Builder, gate: Value, up: Value, *, alpha: float = 1.0) -> Value:
    """swish(gate) * up."""
    return g.call(aten.mul.Tensor, swish(g, gate, alpha=alpha), up)


def _along(target: torch._ops.OpOverload) -> Translation:
    """An operator along one dimension; before opset 13, along all dimensions from one on."""

    def translate(g: Builder, x: Value, *, axis: int | None = None) -> Value:
        if axis is None:
            axis = 1 if g.opset < 13 else -1
        rank = g.rank(x)
        if g.opset >= 13 or axis % max(rank, 1) == rank - 1:
            return g.call(target, x, axis)
        shape = g.shape(x)
        rows = g.call(aten.flatten.using_ints, x, axis % rank, -1)
        return g.call(aten.reshape.default, g.call(target, rows, -1), shape)

    return translate


def hardmax(g: Builder, x: Value, *, axis: int | None = None) -> Value:
    """1 at the first of the largest elements along a dimension, 0 elsewhere."""
    if axis is None:
        axis = 1 if g.opset < 13 else -1
    rank, shape = g.rank(x), g.shape(x)
    flat = g.opset < 13 and axis % rank != rank - 1
    rows = g.call(aten.flatten.using_ints, x, axis % rank, -1) if flat else x
    along = -1 if flat else axis
    first = g.call(aten.argmax.default, rows, along, True)
    marked = g.call(aten.scatter.value, g.call(aten.zeros_like.default, rows), along, first, 1)
    return g.call(aten.reshape.default, marked, shape) if flat else marked


def dropout(
    g: Builder,
    x: Value,
    ratio: Value | float = 0.5,
    training_mode: Value = None,
    *,
    seed: int = 0,
) -> tuple[Value, ...]:
    """Nothing is dropped at inference; the mask is all true."""
    if training_mode is not None:
        training = g.constant(training_mode)
        if training is None:
            raise Unsupported("whether it trains is an input of the model")
        if bool(training):
            raise Unsupported("training mode draws random numbers")
    if not g.wanted[1:2] or not g.wanted[1]:
        return (x,)
    # The mask had the type of x before it became boolean.
    dtype = torch.bool if g.opset >= 10 else g.dtype(x)
    return x, g.call(aten.ones_like.default, x, dtype=dtype)


TABLE: dict[str, Translation] = {
    "Celu": celu,
    "Dropout": dropout,
    "Elu": elu,
    "Gelu": op(aten.gelu.default),
    "HardSigmoid": hard_sigmoid,
    "HardSwish": op(aten.hardswish.default),
    "Hardmax": hardmax,
    "LeakyRelu": leaky_relu,
    "LogSoftmax": _along(aten.log_softmax.int),
    "Mish": op(aten.mish.default),
    "PRelu": prelu,
    "Relu": op(aten.relu.default),
    "Selu": selu,
    "Shrink": shrink,
    "Sigmoid": op(aten.sigmoid.default),
    "Softmax": _along(aten.softmax.int),
    "Softplus": softplus,
    "Softsign": softsign,
    "SwiGLU": swiglu,
    "Swish": swish,
    "ThresholdedRelu": thresholded_relu,
}
