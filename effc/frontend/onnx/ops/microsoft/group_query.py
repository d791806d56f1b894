"""GroupQueryAttention: rotary embedding, cache and attention of a decoder in one operator."""

from __future__ import annotations

import operator
from dataclasses import dataclass, fields
from typing import Any

import torch

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.ops.microsoft import heads
from effc.frontend.onnx.ops.microsoft.rotary import rotate, rotation
from effc.frontend.onnx.values import Size, Unsupported, Value

aten = torch.ops.aten


@dataclass(frozen=True)
class _Inputs:
    """The operator's inputs, in order."""

    query: Value
    key: Value = None
    value: Value = None
    past_key: Value = None
    past_value: Value = None
    seqlens_k: Value = None
    total_length: Value = None
    cos_cache: Value = None
    sin_cache: Value = None
    position_ids: Value = None
    attention_bias: Value = None
    head_sink: Value = None
    k_scale: Value = None
    v_scale: Value = None
    q_norm_weight: Value = None
    k_norm_weight: Value = None


@dataclass(frozen=True)
class _Options:
    """The operator's attributes; those from `k_quant_type` on are refused where they are in use."""

    num_heads: int
    kv_num_heads: int
    do_rotary: int = 0
    rotary_interleaved: int = 0
    local_window_size: int = -1
    softcap: float = 0.0
    scale: float = 0.0
    smooth_softmax: int = -1
    causal: int = 1
    qk_norm_epsilon: float = 1e-6
    kv_cache_bit_width: int = 0
    k_quant_type: str = "NONE"
    v_quant_type: str = "NONE"
    sliding_window_cache: int = 0
    qk_output: int = 0

    @property
    def window(self) -> int | None:
        """Tokens that a query sees, itself included."""
        return None if self.local_window_size < 0 else self.local_window_size


@dataclass(frozen=True)
class _Tokens:
    """Where the new tokens stand.

    Attributes:
        new: T.
        past: [B] tokens before the new ones; None when there are none.
        room: S, slots of the resulting cache.
    """

    new: Size
    past: Value
    room: Size


def group_query_attention(g: Builder, *inputs: Value, **attributes: Any) -> tuple[Value, ...]:
    """com.microsoft.GroupQueryAttention.

    Sequences are padded on the right: of sequence b, `seqlens_k[b] + 1` tokens count, the new
    ones included, and its cache holds the past ones from slot 0 on. What ONNX Runtime computes
    for padding tokens, and what it leaves in free slots of the cache, has no meaning.

    A decoder that is specialized (`g.decoder`) has no past and no padding, and its positions are
    an input.

    Returns:
        [B, T, H * D], and keys and values [B, H_kv, S, D] with S = max(total length, past slots).
    """
    x, o = _Inputs(*inputs), _options(g, attributes)
    q, k, v = _split(g, x, o)
    tokens = _tokens(g, q, x)
    if o.do_rotary:
        interleaved = bool(o.rotary_interleaved)
        positions = _positions(g, tokens, x)
        angles = rotation(g, x.cos_cache, x.sin_cache, positions, interleaved)
        q, k = rotate(g, q, angles, interleaved), rotate(g, k, angles, interleaved)
    if tokens.past is not None:
        k, v = _cached(g, tokens, x.past_key, k), _cached(g, tokens, x.past_value, v)
    out = heads.attend(
        g,
        q,
        k,
        v,
        _mask(g, tokens, x, o),
        heads.score_scale(g, q, o.scale),
        causal=_by_order(g, tokens, o),
        window=o.window if _by_order(g, tokens, o) else None,
        softcap=o.softcap,
        sinks=_sinks(g, x, o),
    )
    return out, k, v


def _options(g: Builder, attributes: dict[str, Any]) -> _Options:
    known = {field.name: field.default for field in fields(_Options)}
    served = list(known).index("k_quant_type")
    # Without a past, a cache that drops what slides out of the window holds nothing to drop.
    free = ("sliding_window_cache",) if g.decoder is not None else ()
    for name, found in attributes.items():
        refused = name in list(known)[served:] and name not in free and found != known[name]
        if name not in known or refused:
            raise Unsupported(f"attribute {name} = {found!r}")
    if any(g.wanted[3:]):
        raise Unsupported("the scores are asked for as an output")
    return _Options(**attributes)


def _split(g: Builder, x: _Inputs, o: _Options) -> tuple[Value, Value, Value]:
    """q [B, H, T, D], k and v [B, H_kv, T, D], from three tensors or one."""
    query, key, value = x.query, x.key, x.value
    if key is None:
        width = heads.head_width(g, query, o.num_heads + 2 * o.kv_num_heads)
        parts = [o.num_heads * width, o.kv_num_heads * width, o.kv_num_heads * width]
        query, key, value = heads.cut(g, query, parts)
    q = heads.split_heads(g, query, o.num_heads)
    k, v = (heads.split_heads(g, part, o.kv_num_heads) for part in (key, value))
    return _normal(g, q, x.q_norm_weight, o), _normal(g, k, x.k_norm_weight, o), v


def _normal(g: Builder, x: Value, weight: Value, o: _Options) -> Value:
    if weight is None:
        return x
    return g.call(torch.ops.effc.rms_norm.default, x, weight, o.qk_norm_epsilon, False)


def _tokens(g: Builder, q: Value, x: _Inputs) -> _Tokens:
    new = g.size(q, 2)
    if x.past_key is None or g.decoder is not None:
        return _Tokens(new, None, new)
    last = g.call(aten.to.dtype, g.call(aten.reshape.default, x.seqlens_k, [-1]), torch.int64)
    # A prompt is padded to T tokens: there, fewer than T count, and none are past.
    before = g.call(aten.clamp.default, g.call(aten.sub.Tensor, last, _less_one(g, new)), 0)
    room = g.arith(torch.sym_max, g.int(x.total_length), g.size(x.past_key, 2))
    return _Tokens(new, before, room)


def _positions(g: Builder, tokens: _Tokens, x: _Inputs) -> Value:
    """Token index [B or 1, T] of every new token."""
    if g.decoder is not None:
        return g.decoder.positions
    new = g.call(aten.unsqueeze.default, heads.arange(g, tokens.new), 0)
    if x.position_ids is not None:
        return _given_positions(g, tokens, x, new)
    if tokens.past is None:
        return new
    return g.call(aten.add.Tensor, new, g.call(aten.unsqueeze.default, tokens.past, 1))


def _given_positions(g: Builder, tokens: _Tokens, x: _Inputs, new: Value) -> Value:
    """The positions that are an input; of a first prompt, only the very first of them counts."""
    first = g.call(aten.select.int, g.call(aten.select.int, x.position_ids, 0, 0), 0, 0)
    in_prompt = g.call(aten.add.Tensor, new, first)
    if tokens.past is None:
        return in_prompt
    is_prompt = g.call(aten.eq.Scalar, x.total_length, tokens.new)
    return g.call(aten.where.self, is_prompt, in_prompt, x.position_ids)


def _cached(g: Builder, tokens: _Tokens, past: Value, new: Value) -> Value:
    """The cache [B, H_kv, S, D] with the new tokens right behind the past ones."""
    at = g.call(aten.unsqueeze.default, heads.arange(g, tokens.room), 0)
    past_length = g.call(aten.unsqueeze.default, tokens.past, 1)
    behind = g.call(aten.sub.Tensor, at, past_length)
    behind = g.call(aten.clamp.default, behind, 0, _less_one(g, tokens.new))
    in_new = g.call(aten.add.Scalar, behind, g.size(past, 2))
    in_past = g.call(aten.lt.Tensor, at, past_length)
    source = g.call(aten.where.self, in_past, at, in_new)  # [B, S]
    source = g.call(aten.unsqueeze.default, g.call(aten.unsqueeze.default, source, 1), 3)
    source = g.call(aten.expand.default, source, [-1, g.size(new, 1), -1, g.size(new, 3)])
    return g.call(aten.gather.default, heads.joined(g, past, new), 2, source)


def _by_order(g: Builder, tokens: _Tokens, o: _Options) -> bool:
    """Whether the mask is a matter of the order of the tokens alone: all sequences are as long."""
    return bool(o.causal) and tokens.past is None


def _mask(g: Builder, tokens: _Tokens, x: _Inputs, o: _Options) -> Value:
    """Boolean [B, 1, T, S] or additive, without what the arguments of `effc::attention` say."""
    bias = _widened(g, x.attention_bias, tokens)
    if _by_order(g, tokens, o) or (not o.causal and g.decoder is not None):
        return bias
    visible = _visible(g, tokens, x, o)
    if bias is None:
        return visible
    wide = g.call(aten.to.dtype, bias, torch.float32)
    return g.call(aten.where.ScalarOther, visible, wide, float("-inf"))


def _visible(g: Builder, tokens: _Tokens, x: _Inputs, o: _Options) -> Value:
    key = heads.arange(g, tokens.room)
    if not o.causal:
        return g.call(aten.le.Tensor, key, g.call(aten.reshape.default, x.seqlens_k, [-1, 1, 1, 1]))
    past = g.call(aten.reshape.default, tokens.past, [-1, 1, 1, 1])
    new = g.call(aten.unsqueeze.default, heads.arange(g, tokens.new), 1)
    ahead = g.call(aten.sub.Tensor, key, g.call(aten.add.Tensor, new, past))  # [B, 1, T, S]
    visible = g.call(aten.le.Scalar, ahead, 0)
    if o.window is None:
        return visible
    return g.call(aten.logical_and.default, visible, g.call(aten.gt.Scalar, ahead, -o.window))


def _widened(g: Builder, bias: Value, tokens: _Tokens) -> Value:
    """The bias for S keys: it has a column for each token of the longest sequence."""
    if bias is None or tokens.past is None:
        return bias
    key = heads.arange(g, tokens.room)
    there = g.call(aten.clamp.default, key, 0, _less_one(g, g.size(bias, 3)))
    return g.call(aten.index_select.default, bias, 3, there)


def _sinks(g: Builder, x: _Inputs, o: _Options) -> Value:
    """[H] logits that join the denominator; smooth softmax adds one, exp(0)."""
    if x.head_sink is None and o.smooth_softmax == 1:
        return g.call(aten.zeros.default, [o.num_heads])
    return x.head_sink


def _less_one(g: Builder, size: Size) -> Size:
    return g.arith(operator.sub, size, 1)
