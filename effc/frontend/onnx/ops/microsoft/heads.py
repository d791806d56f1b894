"""What the attention operators of ONNX Runtime have in common: heads, packed inputs, masks."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.values import Size, Unsupported, Value

aten = torch.ops.aten


def head_width(g: Builder, x: Value, heads: int) -> int:
    """D of a tensor [B, T, H * D].

    Raises:
        Unsupported: it is only known at run time.
    """
    width = g.size(x, -1)
    if not isinstance(width, int):
        raise Unsupported("the head width is only known at run time")
    return width // heads


def split_heads(g: Builder, x: Value, heads: int) -> Value:
    """[B, T, H * D] -> [B, H, T, D]."""
    shape = [g.size(x, 0), g.size(x, 1), heads, head_width(g, x, heads)]
    return g.call(aten.transpose.int, g.call(aten.reshape.default, x, shape), 1, 2)


def merge_heads(g: Builder, x: Value) -> Value:
    """[B, H, T, D] -> [B, T, H * D]."""
    batch, heads, length, width = g.shape(x)
    turned = g.call(aten.transpose.int, x, 1, 2)
    merged = g.arith(operator.mul, heads, width)
    return g.call(aten.reshape.default, turned, [batch, length, merged])


def cut(g: Builder, x: Value, widths: Sequence[int]) -> list[Value]:
    """Parts of the last dimension, of the given widths."""
    bounds = [sum(widths[:i]) for i in range(len(widths) + 1)]
    pairs = zip(bounds, bounds[1:], strict=False)
    return [g.call(aten.slice.Tensor, x, -1, start, end) for start, end in pairs]


def unpack(g: Builder, x: Value, count: int) -> list[Value]:
    """[B, T, H, count, D] -> `count` tensors [B, H, T, D]."""
    parts = [g.call(aten.select.int, x, 3, i) for i in range(count)]
    return [g.call(aten.transpose.int, part, 1, 2) for part in parts]


def joined(g: Builder, past: Value, new: Value) -> Value:
    """Keys or values [B, H_kv, S, D] of the past, and the new ones behind them."""
    return new if past is None else g.call(aten.cat.default, [past, new], 2)


def score_scale(g: Builder, q: Value, scale: float) -> float:
    """The factor of the scores of q [B, H, T, D]; 0 stands for 1 / sqrt(D)."""
    return scale or 1 / math.sqrt(head_width(g, q, 1))


def attend(
    g: Builder,
    q: Value,
    k: Value,
    v: Value,
    mask: Value,
    scale: float,
    *,
    causal: bool = False,
    window: int | None = None,
    softcap: float = 0.0,
    sinks: Value = None,
) -> Value:
    """Attention of [B, H, T, D]; arguments as in `effc::attention`, the result as [B, T, H * D]."""
    cap = softcap or None
    args: tuple[Any, ...] = (q, k, v, mask, causal, window, None, scale, cap, sinks)
    return merge_heads(g, g.call(torch.ops.effc.attention.default, *args))


def added(g: Builder, *biases: Value) -> Value:
    """The sum of those that are there, None without any."""
    found = [bias for bias in biases if bias is not None]
    if not found:
        return None
    total = found[0]
    for bias in found[1:]:
        total = g.call(aten.add.Tensor, total, bias)
    return total


def arange(g: Builder, length: Size) -> Value:
    """0, 1, ... as int64."""
    return g.call(aten.arange.default, length, dtype=torch.int64)


def padding_bias(g: Builder, mask: Value, keys: Value, filter_value: float) -> Value:
    """What a mask of integers adds to the scores: 0 where visible, else `filter_value`.

    Args:
        mask: [B] lengths, [2 B] ends and starts, [B, S] or [B, T, S] with 1 for visible keys.
        keys: [B, H_kv, S, D].

    Returns:
        float32, broadcastable to [B, H, T, S]; None without a mask.
    """
    if mask is None:
        return None
    rank = g.rank(mask)
    if rank == 1:
        visible = _between(g, mask, keys)
    elif rank in (2, 3):
        visible = g.call(aten.gt.Scalar, mask, 0)
    else:
        raise Unsupported(f"a mask of rank {rank}")
    for _ in range(4 - g.rank(visible)):
        visible = g.call(aten.unsqueeze.default, visible, 1)
    hidden = g.call(aten.logical_not.default, visible)
    return g.call(aten.mul.Scalar, g.call(aten.to.dtype, hidden, torch.float32), filter_value)


def _between(g: Builder, mask: Value, keys: Value) -> Value:
    """Which keys [B, S] lie before the ends in a mask [B], and not before the starts that follow.

    ONNX Runtime's third form, [3 B + 2], is for its CUDA kernels.
    """
    count, batch = g.size(mask, 0), g.size(keys, 0)
    lengths = _expression(count) == _expression(batch)
    if isinstance(count, int) and isinstance(batch, int) and count not in (batch, 2 * batch):
        raise Unsupported(f"a mask of {count} numbers for a batch of {batch}")
    at = arange(g, g.size(keys, 2))
    ends = g.call(aten.slice.Tensor, mask, 0, 0, batch)
    visible = g.call(aten.lt.Tensor, at, g.call(aten.unsqueeze.default, ends, 1))
    if lengths:
        return visible
    starts = g.call(aten.slice.Tensor, mask, 0, batch, g.arith(operator.mul, batch, 2))
    begun = g.call(aten.ge.Tensor, at, g.call(aten.unsqueeze.default, starts, 1))
    return g.call(aten.logical_and.default, visible, begun)


def _expression(size: Size) -> str:
    """A size in terms of the sizes of the inputs."""
    return str(size.meta["val"]) if isinstance(size, fx.Node) else str(size)
