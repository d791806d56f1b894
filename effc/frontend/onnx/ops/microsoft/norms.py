"""Normalization that is fused with what stands before it."""

from __future__ import annotations

import torch

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.ops.microsoft.heads import added, arange
from effc.frontend.onnx.values import Unsupported, Value

aten = torch.ops.aten
EPSILON = 1e-12


def skip_layer_normalization(
    g: Builder,
    x: Value,
    skip: Value,
    gamma: Value,
    beta: Value = None,
    bias: Value = None,
    *,
    epsilon: float = EPSILON,
) -> tuple[Value, ...]:
    """com.microsoft.SkipLayerNormalization: norm(x + skip + bias), and that sum as output 3."""
    _refuse_statistics(g)
    total = added(g, x, skip, bias)
    return _layer_norm(g, total, gamma, beta, epsilon), None, None, total


def skip_simplified_layer_normalization(
    g: Builder,
    x: Value,
    skip: Value,
    gamma: Value,
    bias: Value = None,
    *,
    epsilon: float = EPSILON,
) -> tuple[Value, ...]:
    """com.microsoft.SkipSimplifiedLayerNormalization: the same with the root mean square."""
    _refuse_statistics(g)
    total = added(g, x, skip, bias)
    return _rms_norm(g, total, gamma, epsilon), None, None, total


def simplified_layer_normalization(
    g: Builder,
    x: Value,
    scale: Value,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> tuple[Value, ...]:
    """SimplifiedLayerNormalization, which ONNX Runtime has in the standard domain.

    Returns:
        The normalized tensor, and 1 / root mean square.
    """
    if axis not in (-1, g.rank(x) - 1):
        raise Unsupported(f"axis = {axis}; only the last axis is normalized")
    out = _rms_norm(g, x, scale, epsilon)
    if not any(g.wanted[1:]):
        return (out,)
    wide = g.call(aten.to.dtype, x, torch.float32)
    squares = g.call(aten.mean.dim, g.call(aten.mul.Tensor, wide, wide), [-1], True)
    return out, g.call(aten.rsqrt.default, g.call(aten.add.Scalar, squares, epsilon))


def embed_layer_normalization(
    g: Builder,
    input_ids: Value,
    segment_ids: Value,
    word_embedding: Value,
    position_embedding: Value,
    segment_embedding: Value,
    gamma: Value,
    beta: Value,
    mask: Value = None,
    position_ids: Value = None,
    *,
    epsilon: float = EPSILON,
    mask_index_type: int = 0,
) -> tuple[Value, ...]:
    """com.microsoft.EmbedLayerNormalization: the sum of BERT's embeddings, normalized.

    Args:
        mask_index_type: concerns the type of an output only.

    Returns:
        [B, T, W]; the number of ones in each row of the mask; the sum before the norm.
    """
    if position_ids is None:
        position_ids = arange(g, g.size(input_ids, 1))
    segments = None
    if segment_embedding is not None:
        segments = g.call(aten.embedding.default, segment_embedding, segment_ids)
    total = added(
        g,
        g.call(aten.embedding.default, word_embedding, input_ids),
        g.call(aten.embedding.default, position_embedding, position_ids),
        segments,
    )
    return _layer_norm(g, total, gamma, beta, epsilon), _count(g, mask, input_ids), total


def _count(g: Builder, mask: Value, ids: Value) -> Value:
    """[B] int32: ones per row, 0 without a mask."""
    if mask is None:
        return g.call(aten.zeros.default, [g.size(ids, 0)], dtype=torch.int32)
    ones = g.call(aten.eq.Scalar, mask, 1)
    return g.call(aten.sum.dim_IntList, ones, [1], dtype=torch.int32)


def _layer_norm(g: Builder, x: Value, gamma: Value, beta: Value, epsilon: float) -> Value:
    return g.call(aten.layer_norm.default, x, [g.size(gamma, 0)], gamma, beta, epsilon)


def _rms_norm(g: Builder, x: Value, gamma: Value, epsilon: float) -> Value:
    """Sums and the product with gamma are float32, the result is rounded once."""
    return g.call(torch.ops.effc.rms_norm.default, x, gamma, epsilon, False)


def _refuse_statistics(g: Builder) -> None:
    if any(g.wanted[1:3]):
        raise Unsupported("mean and deviation are asked for as outputs, which is for training")
