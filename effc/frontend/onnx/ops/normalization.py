"""Normalizations at inference."""

from __future__ import annotations

import math
import operator
from typing import Any

import onnx_ir
import torch

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.elements import torch_dtype
from effc.frontend.onnx.table import Translation
from effc.frontend.onnx.values import Mismatch, Unsupported, Value

aten = torch.ops.aten

EPSILON = 1e-5


def batch_normalization(
    g: Builder,
    x: Value,
    scale: Value,
    bias: Value,
    mean: Value,
    variance: Value,
    *,
    epsilon: float = EPSILON,
    momentum: float = 0.9,
    training_mode: int = 0,
    spatial: int = 1,
) -> Value | tuple[Value, ...]:
    """Normalize every channel of x [N, C, ...] by given moments, or by those of the batch."""
    if not spatial:
        raise Unsupported("statistics of every element on its own (spatial = 0)")
    if training_mode:
        return _trained_batch(g, x, scale, bias, mean, variance, epsilon, momentum)
    if any(g.wanted[1:]):
        raise Unsupported("outputs of training are wanted")
    moments = (mean, variance, False, 1 - momentum, epsilon, False)
    return g.call(aten.batch_norm.default, x, scale, bias, *moments)


def _trained_batch(
    g: Builder,
    x: Value,
    scale: Value,
    bias: Value,
    mean: Value,
    variance: Value,
    epsilon: float,
    momentum: float,
) -> tuple[Value, ...]:
    """Normalize by the batch's own moments; also returns the moving ones."""
    dims = [d for d in range(g.rank(x)) if d != 1]
    found_mean = g.call(aten.mean.dim, x, dims)
    found_variance = g.call(aten.var.correction, x, dims, correction=0)
    moments = (found_mean, found_variance, False, 0.0, epsilon, False)
    y = g.call(aten.batch_norm.default, x, scale, bias, *moments)
    moving = [
        g.call(
            aten.add.Tensor,
            g.call(aten.mul.Scalar, old, momentum),
            g.call(aten.mul.Scalar, new, 1 - momentum),
        )
        for old, new in ((mean, found_mean), (variance, found_variance))
    ]
    return y, *moving


def instance_normalization(
    g: Builder, x: Value, scale: Value, bias: Value, *, epsilon: float = EPSILON
) -> Value:
    """Normalize every channel of every sample of x [N, C, ...]."""
    rest = (None, None, True, 0.0, epsilon, False)
    return g.call(aten.instance_norm.default, x, scale, bias, *rest)


def layer_normalization(
    g: Builder,
    x: Value,
    scale: Value,
    bias: Value = None,
    *,
    axis: int = -1,
    epsilon: float = EPSILON,
    stash_type: int = 1,
) -> Value | tuple[Value, ...]:
    """Normalize the dimensions from `axis` on; mean and 1 / deviation have `stash_type`."""
    first = axis % g.rank(x)
    over = g.shape(x)[first:]
    fits = _same_shape(g, scale, over) and (bias is None or _same_shape(g, bias, over))
    inside = (scale, bias) if fits else (None, None)
    y = g.call(aten.layer_norm.default, x, over, *inside, epsilon)
    if not fits:
        y = g.call(aten.mul.Tensor, y, scale)
        y = y if bias is None else g.call(aten.add.Tensor, y, bias)
    if not any(g.wanted[1:]):
        return y
    wide = g.call(aten.to.dtype, x, _element_type(stash_type))
    dims = list(range(first, g.rank(x)))
    mean = g.call(aten.mean.dim, wide, dims, True)
    variance = g.call(aten.var.correction, wide, dims, correction=0, keepdim=True)
    deviation = g.call(aten.rsqrt.default, g.call(aten.add.Scalar, variance, epsilon))
    return y, mean, deviation


def _element_type(number: int) -> torch.dtype:
    return torch_dtype(onnx_ir.DataType(number))


def _same_shape(g: Builder, value: Value, shape: list[Any]) -> bool:
    """Whether a tensor is known to have a shape."""
    return g.rank(value) == len(shape) and g.shape(value) == shape


def group_normalization(
    g: Builder,
    x: Value,
    scale: Value,
    bias: Value,
    *,
    num_groups: int,
    epsilon: float = EPSILON,
    stash_type: int = 1,
) -> Value:
    """Normalize groups of channels of x [N, C, ...].

    Before opset 21 there is one factor per group, afterwards one per channel.
    """
    if g.opset < 21:
        channels = g.size(x, 1)
        if not isinstance(channels, int):
            raise Unsupported("the number of channels is only known at run time")
        scale, bias = (
            g.call(aten.repeat_interleave.self_int, part, channels // num_groups)
            for part in (scale, bias)
        )
    return g.call(aten.group_norm.default, x, num_groups, scale, bias, epsilon, False)


def rms_normalization(
    g: Builder,
    x: Value,
    scale: Value,
    *,
    axis: int = -1,
    epsilon: float = EPSILON,
    stash_type: int = 1,
) -> Value:
    """Divide by the root of the mean square over the dimensions from `axis` on."""
    rank, inner = g.rank(x), g.dtype(x)
    one = axis % rank == rank - 1 and _same_shape(g, scale, g.shape(x)[-1:])
    if one and inner == g.dtype(scale) and stash_type == 1:
        return g.call(torch.ops.effc.rms_norm.default, x, scale, epsilon, True)
    wide = g.call(aten.to.dtype, x, _element_type(stash_type))
    dims = list(range(axis % rank, rank))
    squares = g.call(aten.mean.dim, g.call(aten.square.default, wide), dims, True)
    root = g.call(aten.sqrt.default, g.call(aten.add.Scalar, squares, epsilon))
    normal = g.call(aten.div.Tensor, wide, root)
    return g.call(aten.mul.Tensor, g.call(aten.to.dtype, normal, g.dtype(scale)), scale)


def lp_normalization(g: Builder, x: Value, *, axis: int = -1, p: int = 2) -> Value:
    """Divide by the p-norm along a dimension; zeros stay zeros."""
    norm = g.call(aten.linalg_vector_norm.default, x, p, [axis], True)
    # 0 / 0 is where the whole row is zero.
    safe = g.call(aten.masked_fill.Scalar, norm, g.call(aten.eq.Scalar, norm, 0), 1)
    return g.call(aten.div.Tensor, x, safe)


def local_response_normalization(
    g: Builder, x: Value, *, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
) -> Value:
    """Divide by a power of the sum of squares over neighbouring channels.

    Krizhevsky et al., "ImageNet Classification with Deep Convolutional Networks", 2012, 3.3.
    """
    if size < 1:
        raise Mismatch(f"{size} neighbouring channels")
    before = math.floor((size - 1) / 2)
    pads = [0, 0] * (g.rank(x) - 2) + [before, size - 1 - before]
    squares = g.call(aten.constant_pad_nd.default, g.call(aten.square.default, x), pads)
    channels = g.size(x, 1)
    total: Value = None
    for i in range(size):
        end = g.arith(operator.add, channels, i)
        part = g.call(aten.slice.Tensor, squares, 1, i, end)
        total = part if total is None else g.call(aten.add.Tensor, total, part)
    scaled = g.call(aten.mul.Scalar, total, alpha / size)
    power = g.call(aten.pow.Tensor_Scalar, g.call(aten.add.Scalar, scaled, bias), beta)
    return g.call(aten.div.Tensor, x, power)


TABLE: dict[str, Translation] = {
    "BatchNormalization": batch_normalization,
    "GroupNormalization": group_normalization,
    "InstanceNormalization": instance_normalization,
    "LRN": local_response_normalization,
    "LayerNormalization": layer_normalization,
    "LpNormalization": lp_normalization,
    "RMSNormalization": rms_normalization,
}
