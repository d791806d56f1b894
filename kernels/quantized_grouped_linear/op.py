"""`effc::quantized_grouped_linear`: `grouped_linear` over experts in the `GroupAffine` layout."""

from __future__ import annotations

from torch import Tensor

from effc.kernels.grouped_linear.op import check_rows
from effc.kernels.grouped_linear.rows import linear_by_expert, linear_rows
from effc.kernels.packing.group_affine import check_planes, dequantize
from effc.kernels.quantized_linear.op import check_input, met_by_weight
from effc.kernels.registry import define

SCHEMA = (
    "quantized_grouped_linear(Tensor x, Tensor codes, Tensor scale, Tensor? zero, "
    "Tensor expert_ids, Tensor? bias, int bits, int group, int in_features, str activations) "
    "-> Tensor"
)


def reference(
    x: Tensor,
    codes: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    expert_ids: Tensor,
    bias: Tensor | None,
    bits: int,
    group: int,
    in_features: int,
    activations: str,
) -> Tensor:
    """Multiply each row with its expert's weight, sums in float32.

    Only experts that are present are dequantized, a block of output features at a time. Up to 16
    rows per expert, each row's result is that of the row alone, bit for bit.

    Args:
        x: [S, in].
        codes: uint8 [E, out, bytes].
        scale: float16 or float32 [E, out, G].
        zero: optional uint8 [E, out, bytes].
        expert_ids: int64 [S].
        bias: optional [E, out].
        bits, group, in_features, activations: as in `effc::quantized_linear`.

    Returns:
        [S, out] in the dtype of x.

    Raises:
        KernelError: E0503, when arguments do not belong together or an id lies outside [0, E).
    """
    check_planes(codes, scale, zero, bits, group, in_features)
    check_input(x, in_features, activations)
    experts, out_features = codes.shape[:2]
    check_rows(x, expert_ids, experts, in_features)

    def apply(rows: Tensor, expert: int) -> Tensor:
        result = linear_rows(
            met_by_weight(rows, group, activations),
            out_features,
            lambda block: dequantize(codes, scale, zero, bits, in_features, (expert, block)),
        )
        return result if bias is None else result + bias[expert]

    return linear_by_expert(x, expert_ids, out_features, apply)


def fake(
    x: Tensor,
    codes: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    expert_ids: Tensor,
    bias: Tensor | None,
    bits: int,
    group: int,
    in_features: int,
    activations: str,
) -> Tensor:
    """[S, out] in the dtype of x."""
    return x.new_empty(x.shape[0], codes.shape[1])


quantized_grouped_linear = define(SCHEMA, reference, fake)
