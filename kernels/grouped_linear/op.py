"""`effc::grouped_linear`: row s of the input goes through the expert `expert_ids[s]`.

    out[s] = weight[expert_ids[s]] @ x[s] + bias[expert_ids[s]]

A mixture of experts needs no sorting or padding around it: a token routed to k experts is k rows.
"""

from __future__ import annotations

from torch import Tensor

from effc.diagnostics import KernelError
from effc.kernels.grouped_linear.rows import compute_dtype, linear_by_expert, linear_rows
from effc.kernels.registry import define

SCHEMA = (
    "grouped_linear(Tensor x, Tensor weight, Tensor expert_ids, Tensor? bias, bool transposed) "
    "-> Tensor"
)


def reference(
    x: Tensor, weight: Tensor, expert_ids: Tensor, bias: Tensor | None, transposed: bool
) -> Tensor:
    """Multiply each row with its expert's weight, sums in float32.

    Up to 16 rows per expert, each row's result is that of the row alone, bit for bit.

    Args:
        x: [S, in].
        weight: [E, out, in], or [E, in, out] if `transposed`.
        expert_ids: int64 [S].
        bias: optional [E, out].

    Returns:
        [S, out] in the dtype of x.

    Raises:
        KernelError: E0503, when shapes do not fit or an id lies outside [0, E).
    """
    matrices = weight.transpose(1, 2) if transposed else weight
    experts, out_features, in_features = matrices.shape
    check_rows(x, expert_ids, experts, in_features)

    def apply(rows: Tensor, expert: int) -> Tensor:
        rows = rows.to(compute_dtype(x))
        result = linear_rows(rows, out_features, lambda block: matrices[expert, block])
        return result if bias is None else result + bias[expert]

    return linear_by_expert(x, expert_ids, out_features, apply)


def fake(
    x: Tensor, weight: Tensor, expert_ids: Tensor, bias: Tensor | None, transposed: bool
) -> Tensor:
    """[S, out] in the dtype of x."""
    return x.new_empty(x.shape[0], weight.shape[2 if transposed else 1])


def check_rows(x: Tensor, expert_ids: Tensor, experts: int, in_features: int) -> None:
    """Refuse rows [S, in] and expert ids [S] that do not fit the experts.

    Raises:
        KernelError: E0503, naming what was found and what fits.
    """
    if x.ndim != 2 or x.shape[1] != in_features or expert_ids.shape != x.shape[:1]:
        raise KernelError(
            "E0503",
            f"x {list(x.shape)} and expert_ids {list(expert_ids.shape)} are not "
            f"[S, {in_features}] and [S]",
        )
    outside = expert_ids[(expert_ids < 0) | (expert_ids >= experts)]
    if outside.numel():
        raise KernelError(
            "E0503", f"expert id {outside[0].item()} lies outside the {experts} experts"
        )


grouped_linear = define(SCHEMA, reference, fake)
