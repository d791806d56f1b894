"""Muon for hidden matrices, AdamW for everything else."""

from __future__ import annotations

import torch
from torch import nn


def build_optimizers(
    model: nn.Module, matrix_rate: float, other_rate: float, weight_decay: float
) -> list[torch.optim.Optimizer]:
    """Give Muon the hidden matrices and AdamW the rest; group entry "peak" keeps the peak rate.

    Embedding rows are looked up one at a time, so orthogonalizing their table makes no sense.

    Args:
        model: What will be trained.
        matrix_rate: Peak rate of the hidden matrices, scaled to the size of AdamW's updates.
        other_rate: Peak rate of embeddings, norms and biases.
        weight_decay: Of the hidden matrices.
    """
    tables = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    matrices, others = [], []
    for parameter in model.parameters():
        hidden = parameter.ndim == 2 and id(parameter) not in tables
        (matrices if hidden else others).append(parameter)
    muon = torch.optim.Muon(
        [{"params": matrices, "peak": matrix_rate}],
        lr=matrix_rate,
        weight_decay=weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    adamw = torch.optim.AdamW(
        [{"params": others, "peak": other_rate}], lr=other_rate, betas=(0.9, 0.95), weight_decay=0.0
    )
    return [muon, adamw]
