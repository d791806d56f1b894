"""Attention and rotary embeddings.

What exporters write becomes one `effc::attention`. It places the queries at the last T of the S
tokens; where ONNX places them elsewhere, the mask says so. The products are written out where there
may be more queries than keys, and for whoever wants the scores themselves or another precision.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

import onnx_ir
import torch
from torch import fx

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.elements import torch_dtype
from effc.frontend.onnx.ops.microsoft.heads import arange, joined, merge_heads, split_heads
from effc.frontend.onnx.ops.microsoft.rotary import rotate
from effc.frontend.onnx.table import Translation
from effc.frontend.onnx.values import Mismatch, Size, Unsupported, Value

aten = torch.ops.aten


@dataclass(frozen=True)
class Form:
    """The attributes of an Attention node that say what it computes.

    Attributes:
        causal: a key must not come after the query.
        left, right: how far a key may be before and after the query; -1 is any distance.
        scale: factor of the scores; None is 1 / sqrt(D).
        softcap: 0 for none.
        precision: ONNX element type of the softmax, 0 for that of the queries.
        scores: which scores are an output: 0 as multiplied, 1 capped, 2 masked, 3 the weights.
    """

    causal: bool
    left: int
    right: int
    scale: float | None
    softcap: float
    precision: int
    scores: int

    @property
    def positional(self) -> bool:
        """Whether it matters where a query stands."""
        return self.causal or self.left >= 0 or self.right >= 0


def attention(
    g: Builder,
    q: Value,
    k: Value,
    v: Value,
    attn_mask: Value = None,
    past_key: Value = None,
    past_value: Value = None,
    nonpad_kv_seqlen: Value = None,
    *,
    is_causal: int = 0,
    kv_num_heads: int = 0,
    left_window_size: int = -1,
    q_num_heads: int = 0,
    qk_matmul_output_mode: int = 0,
    right_window_size: int = -1,
    scale: float | None = None,
    softcap: float = 0.0,
    softmax_precision: int = 0,
) -> tuple[Value, ...]:
    """Attention of [B, H, T, D] or [B, T, H * D], over keys of the past and new ones.

    Args:
        attn_mask: broadcastable to [B, H, T, S], true for visible keys or added to the scores.
        past_key, past_value: [B, H_kv, S - T, D].
        nonpad_kv_seqlen: [B] keys from the first on that count; the queries are the last of them.
    """
    form = Form(
        bool(is_causal),
        left_window_size,
        right_window_size,
        scale,
        softcap,
        softmax_precision,
        qk_matmul_output_mode,
    )
    flat = g.rank(q) == 3
    if flat:
        q = split_heads(g, q, q_num_heads)
        k, v = (split_heads(g, part, kv_num_heads) for part in (k, v))
    aligned = _same_size(g.size(q, 2), g.size(k, 2)) and nonpad_kv_seqlen is None
    keys, values = joined(g, past_key, k), joined(g, past_value, v)
    mask = _given_mask(g, attn_mask, q, keys, nonpad_kv_seqlen is not None)
    native = aligned and form.right in (-1, 0)
    if nonpad_kv_seqlen is not None or (form.positional and not native):
        offset = 0 if past_key is None else g.size(past_key, 2)
        mask = _both(g, mask, _positions(g, q, keys, form, offset, nonpad_kv_seqlen))
        form = Form(False, -1, -1, scale, softcap, softmax_precision, qk_matmul_output_mode)
    wants_scores = g.wanted[3:4] == (True,)
    last = aligned or _at_most(g.size(q, 2), g.size(keys, 2))
    if wants_scores or not last or not _in_single(g, q, form):
        y, scores = _written_out(g, q, keys, values, mask, form)
    else:
        y, scores = _canonical(g, q, keys, values, mask, form), None
    return merge_heads(g, y) if flat else y, keys, values, scores


def _same_size(a: Size, b: Size) -> bool:
    """Whether two sizes are the same for all inputs."""
    if isinstance(a, fx.Node) and isinstance(b, fx.Node):
        first, second = a.meta.get("val"), b.meta.get("val")
        if isinstance(first, torch.SymInt) and isinstance(second, torch.SymInt):
            return first.node.expr == second.node.expr
        return a is b
    return a is b or (isinstance(a, int) and a == b)


def _at_most(a: Size, b: Size) -> bool:
    """Whether one size is known not to be above another."""
    return isinstance(a, int) and isinstance(b, int) and a <= b


def _in_single(g: Builder, q: Value, form: Form) -> bool:
    """Whether sums in fp32, as `effc::attention` has them, are at least as exact as asked for."""
    return g.dtype(q) != torch.float64 and form.precision != onnx_ir.DataType.DOUBLE


def _scale(g: Builder, q: Value, form: Form) -> float:
    if form.scale is not None:
        return form.scale
    width = g.size(q, 3)
    if not isinstance(width, int):
        raise Unsupported("the head width is only known at run time")
    return 1 / math.sqrt(width)


def _canonical(g: Builder, q: Value, k: Value, v: Value, mask: Value, form: Form) -> Value:
    causal = form.causal or form.right == 0
    window = form.left + 1 if form.left >= 0 else None
    rest: tuple[Any, ...] = (_scale(g, q, form), form.softcap or None, None)
    return g.call(torch.ops.effc.attention.default, q, k, v, mask, causal, window, None, *rest)


def _given_mask(g: Builder, mask: Value, q: Value, k: Value, may_be_short: bool) -> Value:
    """A mask as [B or 1, H or 1, T, S]; keys beyond its end are not visible."""
    if mask is None:
        return None
    for _ in range(4 - g.rank(mask)):
        mask = g.call(aten.unsqueeze.default, mask, 0)
    length, keys = g.size(mask, 3), g.size(k, 2)
    known = isinstance(length, int) and isinstance(keys, int)
    if g.opset >= 24 and not _same_size(length, keys) and (may_be_short or known):
        hidden = False if g.dtype(mask) == torch.bool else float("-inf")
        more = g.arith(operator.sub, keys, length)
        mask = g.call(aten.constant_pad_nd.default, mask, [0, more], hidden)
    sizes = [g.size(q, 2), keys]
    if 1 in g.shape(mask)[2:] and g.shape(mask)[2:] != sizes:
        mask = g.call(aten.expand.default, mask, [-1, -1, *sizes])
    return mask


def _positions(g: Builder, q: Value, k: Value, form: Form, offset: Size, lengths: Value) -> Value:
    """Which keys are visible by their place: [B or 1, 1, T, S]."""
    columns = arange(g, g.size(k, 2))
    rows = g.call(aten.unsqueeze.default, arange(g, g.size(q, 2)), 1)
    found: Value = None
    if lengths is not None:
        ends = g.call(aten.reshape.default, lengths, [-1, 1, 1, 1])
        found = g.call(aten.lt.Tensor, columns, ends)
        rows = g.call(aten.add.Tensor, rows, g.call(aten.sub.Tensor, ends, g.size(q, 2)))
    else:
        rows = g.call(aten.add.Tensor, rows, offset)
        rows = g.call(aten.reshape.default, rows, [1, 1, -1, 1])
    after = [0] if form.causal else []
    after += [form.right] if form.right >= 0 else []
    if after:
        last = g.call(aten.add.Tensor, rows, min(after))
        found = _both(g, found, g.call(aten.le.Tensor, columns, last))
    if form.left >= 0:
        first = g.call(aten.sub.Tensor, rows, form.left)
        found = _both(g, found, g.call(aten.ge.Tensor, columns, first))
    width = [-1, -1, g.size(q, 2), g.size(k, 2)]
    return g.call(aten.expand.default, found, width)


def _both(g: Builder, mask: Value, visible: Value) -> Value:
    """A mask, and a boolean one besides."""
    if mask is None or visible is None:
        return visible if mask is None else mask
    if g.dtype(mask) == torch.bool:
        return g.call(aten.logical_and.default, mask, visible)
    hidden = g.call(aten.logical_not.default, visible)
    return g.call(aten.masked_fill.Scalar, mask, hidden, float("-inf"))


def _written_out(
    g: Builder, q: Value, k: Value, v: Value, mask: Value, form: Form
) -> tuple[Value, Value]:
    """The result [B, H, T, D_v] and the scores [B, H, T, S], by plain products."""
    if form.positional:
        visible = _positions(g, q, k, form, g.arith(operator.sub, g.size(k, 2), g.size(q, 2)), None)
        mask = _both(g, mask, visible)
    heads, kv_heads = g.size(q, 1), g.size(k, 1)
    if not isinstance(heads, int) or not isinstance(kv_heads, int):
        raise Unsupported("the number of heads is only known at run time")
    if heads % kv_heads:
        raise Mismatch(f"{heads} heads of queries for {kv_heads} heads of keys")
    if heads != kv_heads:
        group = heads // kv_heads
        k, v = (g.call(aten.repeat_interleave.self_int, part, group, 1) for part in (k, v))
    root = math.sqrt(_scale(g, q, form))
    turned = g.call(aten.transpose.int, g.call(aten.mul.Scalar, k, root), 2, 3)
    scores = g.call(aten.matmul.default, g.call(aten.mul.Scalar, q, root), turned)
    stages = [scores]
    if form.softcap:
        scores = g.call(aten.tanh.default, g.call(aten.div.Scalar, scores, form.softcap))
        scores = g.call(aten.mul.Scalar, scores, form.softcap)
    stages.append(scores)
    bias = None if mask is None else _bias(g, mask, g.dtype(q))
    scores = scores if bias is None else g.call(aten.add.Tensor, scores, bias)
    stages.append(scores)
    stages.append(_softmax(g, scores, bias, form))
    return g.call(aten.matmul.default, stages[3], v), stages[form.scores]


def _bias(g: Builder, mask: Value, dtype: torch.dtype) -> Value:
    """What a mask adds to the scores."""
    if g.dtype(mask) != torch.bool:
        return g.call(aten.to.dtype, mask, dtype)
    zeros = g.call(aten.zeros_like.default, mask, dtype=dtype)
    hidden = g.call(aten.logical_not.default, mask)
    return g.call(aten.masked_fill.Scalar, zeros, hidden, float("-inf"))


def _softmax(g: Builder, scores: Value, bias: Value, form: Form) -> Value:
    """Weights over the keys; a query that sees nothing has zeros."""
    inner = g.dtype(scores)
    if form.precision:
        scores = g.call(aten.to.dtype, scores, torch_dtype(onnx_ir.DataType(form.precision)))
    weights = g.call(aten.to.dtype, g.call(aten.softmax.int, scores, -1), inner)
    if bias is None:
        return weights
    best = g.call(aten.amax.default, bias, [-1], True)
    blind = g.call(aten.eq.Scalar, best, float("-inf"))
    return g.call(aten.masked_fill.Scalar, weights, blind, 0)


def rotary_embedding(
    g: Builder,
    x: Value,
    cos_cache: Value,
    sin_cache: Value,
    position_ids: Value = None,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
) -> Value:
    """Rotate the first coordinates of x [B, H, T, D] or [B, T, H * D].

    Args:
        cos_cache, sin_cache: [positions, R / 2], or [B, T, R / 2] without positions.
        position_ids: [B, T].
    """
    flat = g.rank(x) == 3
    if flat:
        x = split_heads(g, x, num_heads)
    angles = []
    for cache in (cos_cache, sin_cache):
        rows = cache
        if position_ids is not None:
            rows = g.call(aten.embedding.default, cache, position_ids)
        if interleaved:
            rows = g.call(aten.repeat_interleave.self_int, rows, 2, -1)
        else:
            rows = g.call(aten.cat.default, [rows, rows], -1)
        angles.append(g.call(aten.unsqueeze.default, rows, 1))
    rotated = rotate(g, x, (angles[0], angles[1]), bool(interleaved))
    return merge_heads(g, rotated) if flat else rotated


TABLE: dict[str, Translation] = {
    "Attention": attention,
    "RotaryEmbedding": rotary_embedding,
}
