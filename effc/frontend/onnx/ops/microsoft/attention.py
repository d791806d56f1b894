"""MultiHeadAttention and Attention: attention as encoders and GPT-2 have it."""

from __future__ import annotations

import torch

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.ops.microsoft import heads
from effc.frontend.onnx.values import Mismatch, Unsupported, Value

aten = torch.ops.aten

# What hides a key where the file does not say otherwise.
FILTER_VALUE = -10000.0


def multi_head_attention(
    g: Builder,
    query: Value,
    key: Value = None,
    value: Value = None,
    bias: Value = None,
    key_padding_mask: Value = None,
    attention_bias: Value = None,
    past_key: Value = None,
    past_value: Value = None,
    past_sequence_length: Value = None,
    cache_indirection: Value = None,
    *,
    num_heads: int,
    mask_filter_value: float = FILTER_VALUE,
    scale: float = 0.0,
    unidirectional: int = 0,
) -> tuple[Value, ...]:
    """com.microsoft.MultiHeadAttention.

    Args:
        query: [B, T, H * D], or all three packed as [B, T, H, 3, D].
        key: [B, S, H * D], packed with the value as [B, S, H, 2, D], or [B, H, S, D].
        value: [B, S, H * D_v] or [B, H, S, D_v].
        bias: [H * (2 D + D_v)], of q, k and v one after the other; keys [B, H, S, D] have theirs.
        key_padding_mask: see `heads.padding_bias`.
        attention_bias: [B or 1, H or 1, T, S], added to the scores.
        past_key, past_value: [B, H, P, D].

    Returns:
        [B, T, H * D_v], and all keys and values.
    """
    if past_sequence_length is not None or cache_indirection is not None:
        raise Unsupported("past and present share a buffer")
    _refuse_scores(g)
    if unidirectional and key is not None and g.rank(key) == 4:
        raise Unsupported("unidirectional = 1 with keys of another sequence")
    q, k, v = _projected(g, query, key, value, bias, num_heads)
    k, v = heads.joined(g, past_key, k), heads.joined(g, past_value, v)
    mask = heads.padding_bias(g, key_padding_mask, k, mask_filter_value)
    mask = heads.added(g, mask, attention_bias)
    factor = heads.score_scale(g, q, scale)
    return heads.attend(g, q, k, v, mask, factor, causal=bool(unidirectional)), k, v


def _projected(
    g: Builder, query: Value, key: Value, value: Value, bias: Value, count: int
) -> tuple[Value, Value, Value]:
    """q, k and v [B, H, *, D] in whichever form they come, with the bias of their projection."""
    if g.rank(query) == 5:
        q, k, v = heads.unpack(g, query, 3)
    elif key is None:
        q, k, v = (heads.split_heads(g, part, count) for part in _thirds(g, query))
    else:
        q = heads.split_heads(g, query, count)
        k, v = _keys_and_values(g, key, value, count)
    if bias is None:
        return q, k, v
    widths = [heads.head_width(g, x, 1) * count for x in (q, k, v)]
    of_q, of_k, of_v = heads.cut(g, bias, widths)
    if key is not None and g.rank(key) == 4:
        return _biased(g, q, of_q, count), k, v
    return _biased(g, q, of_q, count), _biased(g, k, of_k, count), _biased(g, v, of_v, count)


def _thirds(g: Builder, packed: Value) -> list[Value]:
    return heads.cut(g, packed, [heads.head_width(g, packed, 3)] * 3)


def _keys_and_values(g: Builder, key: Value, value: Value, count: int) -> tuple[Value, Value]:
    if g.rank(key) == 5:
        k, v = heads.unpack(g, key, 2)
        return k, v
    if value is None:
        raise Mismatch("there are keys but no values")
    k, v = (x if g.rank(x) == 4 else heads.split_heads(g, x, count) for x in (key, value))
    return k, v


def _biased(g: Builder, x: Value, bias: Value, count: int) -> Value:
    """x [B, H, T, D] plus a bias [H * D]."""
    per_head = g.call(aten.reshape.default, bias, [count, 1, heads.head_width(g, x, 1)])
    return g.call(aten.add.Tensor, x, per_head)


def attention(
    g: Builder,
    x: Value,
    weights: Value,
    bias: Value = None,
    mask_index: Value = None,
    past: Value = None,
    attention_bias: Value = None,
    past_sequence_length: Value = None,
    *,
    num_heads: int,
    mask_filter_value: float = FILTER_VALUE,
    scale: float = 0.0,
    unidirectional: int = 0,
    qkv_hidden_sizes: list[int] | None = None,
    do_rotary: int = 0,
    rotary_embedding_dim: int = 0,
    past_present_share_buffer: int = 0,
) -> tuple[Value, ...]:
    """com.microsoft.Attention: projection and attention.

    Args:
        x: [B, T, W].
        weights: [W, H * (2 D + D_v)].
        bias: [H * (2 D + D_v)].
        mask_index: see `heads.padding_bias`.
        past: [2, B, H, P, D].
        attention_bias: [B or 1, H or 1, T, S].

    Returns:
        [B, T, H * D_v], and keys and values [2, B, H, S, D].
    """
    if do_rotary or past_present_share_buffer:
        name = "do_rotary" if do_rotary else "past_present_share_buffer"
        raise Unsupported(f"{name} = 1")
    q, k, v = _projection(g, x, weights, bias, num_heads, qkv_hidden_sizes)
    if past is not None:
        k = heads.joined(g, g.call(aten.select.int, past, 0, 0), k)
        v = heads.joined(g, g.call(aten.select.int, past, 0, 1), v)
    mask = heads.padding_bias(g, mask_index, k, mask_filter_value)
    mask = heads.added(g, mask, attention_bias)
    factor = heads.score_scale(g, q, scale)
    out = heads.attend(g, q, k, v, mask, factor, causal=bool(unidirectional))
    if not any(g.wanted[1:]):
        return (out,)
    return out, g.call(aten.stack.default, [k, v])


def _projection(
    g: Builder,
    x: Value,
    weights: Value,
    bias: Value,
    count: int,
    widths: list[int] | None,
) -> list[Value]:
    """q, k and v [B, H, T, *] of x [B, T, W]; without widths, equally wide."""
    projected = g.call(aten.matmul.default, x, weights)
    if bias is not None:
        projected = g.call(aten.add.Tensor, projected, bias)
    parts = heads.cut(g, projected, widths or [heads.head_width(g, projected, 3)] * 3)
    return [heads.split_heads(g, part, count) for part in parts]


def _refuse_scores(g: Builder) -> None:
    if any(g.wanted[3:]):
        raise Unsupported("the scores are asked for as an output")
