"""`effc::rope`: rotate pairs of coordinates by angles given as cosines and sines.

Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021, equation 34.
Pairs are (i, i + D/2) in the "half" style of GPT-NeoX and Llama, (2i, 2i + 1) in the "interleaved"
style of GPT-J.
"""

from __future__ import annotations

import torch

from effc.kernels.registry import define

SCHEMA = "rope(Tensor x, Tensor cos, Tensor sin, str style) -> Tensor"


def rotate(x: torch.Tensor, style: str) -> torch.Tensor:
    """The quarter turn of every pair: (a, b) becomes (-b, a)."""
    if style == "half":
        first, second = x.chunk(2, dim=-1)
        return torch.cat((-second, first), dim=-1)
    return torch.stack((-x[..., 1::2], x[..., ::2]), dim=-1).flatten(-2)


def reference(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, style: str) -> torch.Tensor:
    """x * cos + quarter_turn(x) * sin.

    Args:
        x: [B, H, T, D].
        cos, sin: broadcastable to `x`, one entry per coordinate.
        style: "half" or "interleaved".

    Returns:
        The shape of `x`, in the promoted type.
    """
    return x * cos + rotate(x, style) * sin


def fake(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, style: str) -> torch.Tensor:
    """The shape of `x`."""
    dtype = torch.promote_types(x.dtype, cos.dtype)
    return torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)


rope = define(SCHEMA, reference, fake)
