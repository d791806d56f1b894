"""`effc::gated_activation`: act(gate) * up, the heart of a gated feed-forward layer.

Shazeer, "GLU Variants Improve Transformer", 2020, equation 5.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from effc.kernels.registry import define

SCHEMA = "gated_activation(Tensor gate, Tensor up, str activation) -> Tensor"

ACTIVATIONS = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "sigmoid": torch.sigmoid,
}


def reference(gate: torch.Tensor, up: torch.Tensor, activation: str) -> torch.Tensor:
    """act(gate) * up.

    Args:
        gate, up: [..., I].
        activation: a key of `ACTIVATIONS`.

    Returns:
        [..., I].
    """
    return ACTIVATIONS[activation](gate) * up


def fake(gate: torch.Tensor, up: torch.Tensor, activation: str) -> torch.Tensor:
    """The shape of the product."""
    return gate * up


gated_activation = define(SCHEMA, reference, fake)
