"""`effc::attention`: scaled dot-product attention with its mask as arguments, not as a tensor.

The canonical form that captured models are raised to. The mask is a statement (causal, sliding
window, chunks), so that a later pass can replace the operator by one that reads a cache.
"""

from __future__ import annotations

import torch

from effc.kernels.registry import define

SCHEMA = (
    "attention(Tensor q, Tensor k, Tensor v, Tensor? mask, bool causal, int? window, int? chunk, "
    "float scale, float? softcap, Tensor? sinks) -> Tensor"
)


def visible(
    query_index: torch.Tensor,
    key_index: torch.Tensor,
    causal: bool,
    window: int | None,
    chunk: int | None,
) -> torch.Tensor:
    """Which key a query may see, by token index.

    Args:
        query_index: broadcastable integers, token index of each query.
        key_index: broadcastable integers, token index of each key.
        causal: a key must not come after the query.
        window: a key must be less than this many tokens before the query.
        chunk: key and query must lie in the same chunk of this many tokens.

    Returns:
        Boolean tensor of the broadcast shape.
    """
    allowed = (query_index >= 0) & (key_index >= 0)
    if causal:
        allowed = allowed & (key_index <= query_index)
    if window is not None:
        allowed = allowed & (query_index - key_index < window)
    if chunk is not None:
        same = query_index.div(chunk, rounding_mode="floor") == key_index.div(
            chunk, rounding_mode="floor"
        )
        allowed = allowed & same
    return allowed


def reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    window: int | None,
    chunk: int | None,
    scale: float,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Attention in plain torch, sums in fp32.

    Args:
        q: [B, H, T, D] queries.
        k: [B, H_kv, S, D] keys; H is a multiple of H_kv.
        v: [B, H_kv, S, D_v] values.
        mask: optional [B or 1, H or 1, T, S]: boolean (true = visible) or additive.
        causal, window, chunk: see `visible`; with one of them, queries are the last T of the S
            tokens.
        scale: factor of the scores.
        softcap: scores become `softcap * tanh(scores / softcap)` before masking.
        sinks: optional [H] logits that join the denominator of the softmax only.

    Returns:
        [B, H, T, D_v] in the type of `q`; a query that sees nothing gives zeros.
    """
    batch, heads, new, width = q.shape
    kv_heads, length = k.shape[1], k.shape[2]
    group = heads // kv_heads
    grouped = q.float().reshape(batch, kv_heads, group, new, width)
    scores = torch.einsum("bhgtd,bhsd->bhgts", grouped, k.float()) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.reshape(batch, heads, new, length)
    keys = torch.arange(length, device=q.device)
    queries = torch.arange(length - new, length, device=q.device)
    allowed = visible(queries[:, None], keys[None, :], causal, window, chunk)
    if not causal and window is None and chunk is None:
        # Where order says nothing, there may be more queries than keys, of another sequence.
        allowed = torch.ones_like(allowed)
    if mask is not None and mask.dtype == torch.bool:
        allowed = allowed & mask
    elif mask is not None:
        scores = scores + mask.float()
    weights = softmax_with_sinks(scores.masked_fill(~allowed, float("-inf")), sinks)
    weights = weights.reshape(batch, kv_heads, group, new, length)
    out = torch.einsum("bhgts,bhsd->bhgtd", weights, v.float())
    return out.reshape(batch, heads, new, v.shape[-1]).to(q.dtype)


def softmax_with_sinks(scores: torch.Tensor, sinks: torch.Tensor | None) -> torch.Tensor:
    """Softmax over the last dimension of [B, H, T, S]; rows without any key become zeros."""
    if sinks is not None:
        column = sinks.float()[None, :, None, None].expand(*scores.shape[:-1], 1)
        return torch.softmax(torch.cat([scores, column], dim=-1), dim=-1)[..., :-1]
    return torch.nan_to_num(torch.softmax(scores, dim=-1), nan=0.0)


def fake(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    causal: bool,
    window: int | None,
    chunk: int | None,
    scale: float,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """[B, H, T, D_v]."""
    return q.new_empty((*q.shape[:-1], v.shape[-1]))


attention = define(SCHEMA, reference, fake)
