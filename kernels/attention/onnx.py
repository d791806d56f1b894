"""`effc::attention` in ONNX, and the pieces that attention over a cache shares with it."""

from __future__ import annotations

import torch

from effc.kernels.onnx import OnnxGraph, Value


def translate(
    g: OnnxGraph,
    q: Value,
    k: Value,
    v: Value,
    mask: Value | None,
    sinks: Value | None,
    *,
    causal: bool,
    scale: float,
    window: int | None = None,
    chunk: int | None = None,
    softcap: float | None = None,
) -> Value:
    """Attention without a cache; the queries are the last T of the S tokens."""
    if causal or window is not None or chunk is not None:
        S, T = size(g, k, 2), size(g, q, 2)
        keys = count(g, S)
        queries = g.op("Add", count(g, T), g.op("Sub", S, T))
        seen = visible(g, column(g, queries), keys, causal, window, chunk)
        mask = seen if mask is None else combined(g, mask, seen)
    return attend(g, q, k, v, mask, sinks, scale=scale, softcap=softcap)


def visible(
    g: OnnxGraph, query: Value, key: Value, causal: bool, window: int | None, chunk: int | None
) -> Value:
    """Which key [.., 1, S] a query [.., T, 1] sees, by token index; see the reference."""
    seen = g.op("LessOrEqual", key, query) if causal else g.op("Equal", key, key)
    if window is not None:
        near = g.op("Less", g.op("Sub", query, key), g.ints(window))
        seen = g.op("And", seen, near)
    if chunk is not None:
        # Token indices are not negative, so that rounding towards zero is rounding down.
        parts = (g.op("Div", side, g.ints(chunk)) for side in (query, key))
        seen = g.op("And", seen, g.op("Equal", *parts))
    return seen


def combined(g: OnnxGraph, mask: Value, seen: Value) -> Value:
    """A mask, boolean or additive, with `seen` [T, S] besides."""
    if g.dtype(mask) == torch.bool:
        return g.op("And", mask, seen)
    return g.op("Where", seen, mask, g.scalar(-torch.inf, mask))


def attend(
    g: OnnxGraph,
    q: Value,
    k: Value,
    v: Value,
    mask: Value | None,
    sinks: Value | None,
    *,
    scale: float,
    softcap: float | None,
) -> Value:
    """softmax(scale * q k^T + mask) v, written out.

    Args:
        q: [B, H, T, D].
        k, v: [B, H_kv, S, D] and [B, H_kv, S, D_v].
        mask: boolean or additive, broadcastable to [B, H, T, S].
        sinks: optional [H].
    """
    k, v = (_repeated(g, q, side) for side in (k, v))
    scaled = g.op("Mul", q, g.scalar(scale, q))
    scores = g.op("MatMul", scaled, g.op("Transpose", k, perm=[0, 1, 3, 2]))
    if softcap is not None:
        squeezed = g.op("Tanh", g.op("Div", scores, g.scalar(softcap, q)))
        scores = g.op("Mul", squeezed, g.scalar(softcap, q))
    if mask is not None and g.dtype(mask) == torch.bool:
        scores = g.op("Where", mask, scores, g.scalar(torch.finfo(g.dtype(q)).min, q))
    elif mask is not None:
        scores = g.op("Add", scores, g.cast(mask, g.dtype(q)))
    return g.op("MatMul", _softmax(g, scores, sinks, mask), v)


def _softmax(g: OnnxGraph, scores: Value, sinks: Value | None, mask: Value | None) -> Value:
    """Over the last dimension; a row without any key becomes zeros."""
    if sinks is None:
        weights = g.op("Softmax", scores, axis=-1)
    else:
        column = g.op("Reshape", g.cast(sinks, g.dtype(scores)), g.ints(1, -1, 1, 1))
        lead = g.op("Slice", g.op("Shape", scores), g.ints(0), g.ints(3))
        column = g.op("Expand", column, g.op("Concat", lead, g.ints(1), axis=0))
        every = g.op("Softmax", g.op("Concat", scores, column, axis=-1), axis=-1)
        weights = g.op("Slice", every, g.ints(0), g.ints(-1), g.ints(3))
    if mask is not None and g.dtype(mask) == torch.bool:
        return g.op("Where", mask, weights, g.scalar(0.0, weights))
    return weights


def _repeated(g: OnnxGraph, q: Value, kv: Value) -> Value:
    """Keys or values [B, H_kv, S, D] for every query head: [B, H, S, D]."""
    heads, kv_heads, width = int(g.shape(q)[1]), int(g.shape(kv)[1]), int(g.shape(kv)[3])
    if heads == kv_heads:
        return kv
    lead, S = size(g, kv, 0), size(g, kv, 2)
    wide = g.op("Concat", lead, g.ints(kv_heads, heads // kv_heads), S, g.ints(width), axis=0)
    grouped = g.op("Expand", g.op("Unsqueeze", kv, g.ints(2)), wide)
    return g.op("Reshape", grouped, g.op("Concat", lead, g.ints(heads), S, g.ints(width), axis=0))


def size(g: OnnxGraph, x: Value, dim: int) -> Value:
    """One size as a vector of one element."""
    return g.op("Shape", x, start=dim, end=dim + 1)


def count(g: OnnxGraph, length: Value) -> Value:
    """0, 1, ..., length - 1 for a length given as a vector of one element."""
    return g.op("Range", g.index(0), g.op("Squeeze", length, g.ints(0)), g.index(1))


def column(g: OnnxGraph, x: Value) -> Value:
    """[.., T] as [.., T, 1]."""
    return g.op("Unsqueeze", x, g.ints(-1))
