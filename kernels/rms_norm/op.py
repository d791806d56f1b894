"""`effc::rms_norm`: x / sqrt(mean(x^2) + eps), times a weight.

Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019, equation 4.
"""

from __future__ import annotations

import torch

from effc.kernels.registry import define

SCHEMA = "rms_norm(Tensor x, Tensor weight, float eps, bool round_first) -> Tensor"


def reference(x: torch.Tensor, weight: torch.Tensor, eps: float, round_first: bool) -> torch.Tensor:
    """Normalize the last dimension, in fp32.

    Args:
        x: [..., W].
        weight: [W].
        eps: added to the mean of squares.
        round_first: round the normalized value to the type of `x` before the weight multiplies it
            (Llama); otherwise multiply in fp32 and round once (Gemma, OLMo-2).

    Returns:
        [..., W]: in the type of `weight * x` if rounded first, else in the type of `x`.
    """
    wide = x.float()
    normal = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    if round_first:
        return weight * normal.to(x.dtype)
    return (normal * weight.float()).to(x.dtype)


def fake(x: torch.Tensor, weight: torch.Tensor, eps: float, round_first: bool) -> torch.Tensor:
    """The shape of `x`."""
    dtype = torch.promote_types(x.dtype, weight.dtype) if round_first else x.dtype
    return torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)


rms_norm = define(SCHEMA, reference, fake)
