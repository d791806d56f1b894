"""Rotary embeddings from caches of cosines and sines."""

from __future__ import annotations

import torch

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.ops.microsoft.heads import arange, merge_heads, split_heads
from effc.frontend.onnx.values import Unsupported, Value

aten = torch.ops.aten


def rotary_embedding(
    g: Builder,
    x: Value,
    position_ids: Value,
    cos_cache: Value,
    sin_cache: Value,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
    scale: float = 1.0,
    is_packed_batching: int = 0,
) -> Value:
    """com.microsoft.RotaryEmbedding.

    Args:
        x: [B, T, H * D] or [B, H, T, D].
        position_ids: [B, T], or [1]: that of the first token.
        cos_cache, sin_cache: [positions, half of the rotated width].
        scale: no kernel of ONNX Runtime reads it.
        is_packed_batching: concerns checks of sizes only.
    """
    flat = g.rank(x) == 3
    if flat:
        heads = num_heads or _heads(g, x, cos_cache, rotary_embedding_dim)
        x = split_heads(g, x, heads)
    if g.rank(position_ids) == 1:
        position_ids = g.call(aten.add.Tensor, arange(g, g.size(x, 2)), position_ids)
        position_ids = g.call(aten.unsqueeze.default, position_ids, 0)
    angles = rotation(g, cos_cache, sin_cache, position_ids, bool(interleaved))
    rotated = rotate(g, x, angles, bool(interleaved))
    return merge_heads(g, rotated) if flat else rotated


def _heads(g: Builder, x: Value, cos_cache: Value, rotary_width: int) -> int:
    """Without `num_heads`, all coordinates are rotated and the caches tell the head width."""
    width, half = g.size(x, 2), g.size(cos_cache, 1)
    if rotary_width or not isinstance(width, int) or not isinstance(half, int):
        raise Unsupported("the number of heads is not given")
    return width // (2 * half)


def rotation(
    g: Builder, cos_cache: Value, sin_cache: Value, positions: Value, interleaved: bool
) -> tuple[Value, Value]:
    """Cosines and sines [B or 1, 1, T, R] for positions [B or 1, T], one per rotated coordinate.

    Looked up by indexing: a table of angles is no embedding that a policy could mean. Layers share
    the rows.
    """

    def of(cache: Value) -> Value:
        rows = g.call(aten.index.Tensor, cache, [positions])
        if interleaved:
            full = g.call(aten.repeat_interleave.self_int, rows, 2, -1)
        else:
            full = g.call(aten.cat.default, [rows, rows], -1)
        return g.call(aten.unsqueeze.default, full, 1)

    def rows_of(cache: Value) -> Value:
        return g.once(("rotation", id(cache), id(positions), interleaved), lambda: of(cache))

    return rows_of(cos_cache), rows_of(sin_cache)


def rotate(g: Builder, x: Value, angles: tuple[Value, Value], interleaved: bool) -> Value:
    """Turn the first R coordinates of x [B, H, T, D]; the others stay."""
    style = "interleaved" if interleaved else "half"
    width, rotated = g.size(x, 3), g.size(angles[0], 3)
    if width == rotated:
        return g.call(torch.ops.effc.rope.default, x, *angles, style)
    if not isinstance(rotated, int):
        raise Unsupported("the rotated width is only known at run time")
    first = g.call(aten.slice.Tensor, x, 3, 0, rotated)
    rest = g.call(aten.slice.Tensor, x, 3, rotated, width)
    turned = g.call(torch.ops.effc.rope.default, first, *angles, style)
    return g.call(aten.cat.default, [turned, rest], 3)
