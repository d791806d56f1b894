"""Matrix products whose rows do not depend on one another, bit for bit.

A BLAS product over 5 rows differs in its last bits from 5 products over one row, which is enough
to turn a near-tie of two logits around. So few rows are multiplied one at a time, each sum in an
order that neither the other rows nor the number of threads can change.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor

from effc.kernels.packing.group_affine import row_blocks
from effc.kernels.threads import one_thread

INVARIANT_ROWS = 16


def compute_dtype(x: Tensor) -> torch.dtype:
    """The dtype of products and sums: float32, or float64 for float64 inputs."""
    return torch.promote_types(x.dtype, torch.float32)


def linear_rows(x: Tensor, out_features: int, weight: Callable[[slice], Tensor]) -> Tensor:
    """Multiply rows with a weight that is made a block of output features at a time.

    Up to `INVARIANT_ROWS` rows, each row's result is that of the row alone.

    Args:
        x: [M, in], in its compute dtype.
        weight: gives rows `block` of the weight [out, in], of any floating dtype.

    Returns:
        [M, out] in the dtype of x.
    """
    result = torch.empty(x.shape[0], out_features, dtype=x.dtype, device=x.device)
    few = x.shape[0] <= INVARIANT_ROWS
    with one_thread() if few else nullcontext():
        for block in row_blocks(out_features, x.shape[1]):
            # Sums run along contiguous rows, whatever the strides of the weight.
            result[:, block] = _product(x, weight(block).to(x.dtype).contiguous())
    return result


def linear_by_expert(
    x: Tensor, expert_ids: Tensor, out_features: int, apply: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """Give the rows of each expert that is present to `apply(rows, expert)`.

    Args:
        x: [S, in]; expert_ids: int64 [S].

    Returns:
        [S, out_features] in the dtype of x, rows in their original order.
    """
    result = torch.empty(x.shape[0], out_features, dtype=x.dtype, device=x.device)
    for expert in expert_ids.unique().tolist():
        rows = expert_ids == expert
        result[rows] = apply(x[rows], expert).to(x.dtype)
    return result


def _product(x: Tensor, weight: Tensor) -> Tensor:
    if x.shape[0] > INVARIANT_ROWS:
        return x @ weight.T
    result = torch.empty(x.shape[0], weight.shape[0], dtype=x.dtype, device=x.device)
    # A sum to a single number is the one kind that torch shares out among threads, in an order
    # of their count: a second, equal row avoids it.
    rows = weight if weight.shape[0] > 1 else weight.expand(2, -1)
    for index, row in enumerate(x):
        result[index] = (rows * row).sum(-1)[: weight.shape[0]]
    return result
