"""`effc::quantized_linear`: a linear layer whose weight is packed in the `GroupAffine` layout.

    out = x @ dequantize(codes, scale, zero).T + bias

`activations` says in which precision the input meets the weight: "source" takes x as it is,
"int8" first rounds each row of x, per group of the weight, to 255 symmetric steps (the meaning of
ONNX Runtime's `MatMulNBits` at accuracy level 4), which integer kernels multiply exactly.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from effc.diagnostics import KernelError
from effc.kernels.grouped_linear.rows import compute_dtype, linear_rows
from effc.kernels.packing.group_affine import check_planes, dequantize
from effc.kernels.registry import define

SCHEMA = (
    "quantized_linear(Tensor x, Tensor codes, Tensor scale, Tensor? zero, Tensor? bias, "
    "int bits, int group, int in_features, str activations) -> Tensor"
)

ACTIVATIONS = ("source", "int8")

# Far below any activation; keeps the scale of an all-zero group, and its inverse, finite.
SMALLEST_ABSMAX = 2.0**-100


def reference(
    x: Tensor,
    codes: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    bias: Tensor | None,
    bits: int,
    group: int,
    in_features: int,
    activations: str,
) -> Tensor:
    """Dequantize a block of output features at a time and multiply, sums in float32.

    Up to 16 rows, each row's result is that of the row alone, bit for bit.

    Args:
        x: [.., in].
        codes: uint8 [out, bytes].
        scale: float16 or float32 [out, G].
        zero: optional uint8 [out, bytes].
        bias: optional [out].
        bits: 8, 4, 3 or 2.
        group: columns that share a scale; `in_features` when a row is one group.
        in_features: width of x.
        activations: "source" or "int8".

    Returns:
        [.., out] in the dtype of x.

    Raises:
        KernelError: E0503, when the arguments do not belong together.
    """
    check_planes(codes, scale, zero, bits, group, in_features)
    check_input(x, in_features, activations)
    rows = met_by_weight(x.reshape(-1, in_features), group, activations)
    out_features = codes.shape[0]
    result = linear_rows(
        rows,
        out_features,
        lambda block: dequantize(codes, scale, zero, bits, in_features, block),
    )
    if bias is not None:
        result += bias
    return result.to(x.dtype).reshape(*x.shape[:-1], out_features)


def fake(
    x: Tensor,
    codes: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    bias: Tensor | None,
    bits: int,
    group: int,
    in_features: int,
    activations: str,
) -> Tensor:
    """[.., out] in the dtype of x."""
    return x.new_empty(*x.shape[:-1], codes.shape[0])


def met_by_weight(x: Tensor, group: int, activations: str) -> Tensor:
    """The rows [M, in] as the weight meets them, in their compute dtype.

    "int8": per row and group of columns, round(x * (127 / absmax)) * (absmax / 127), rounded to
    the nearest even integer.
    """
    x = x.to(compute_dtype(x))
    if activations == "source":
        return x
    in_features = x.shape[-1]
    padded = F.pad(x, (0, -in_features % group))
    grouped = padded.unflatten(-1, (padded.shape[-1] // group, group))  # [M, G, g]
    absmax = grouped.abs().amax(-1, keepdim=True).clamp_min(SMALLEST_ABSMAX)
    steps = (grouped * (127.0 / absmax)).round()
    return (steps * (absmax / 127.0)).flatten(-2)[:, :in_features]


def check_input(x: Tensor, in_features: int, activations: str) -> None:
    """Refuse an input that does not fit the weight, or an unknown precision.

    Raises:
        KernelError: E0503, naming what was found and what fits.
    """
    if activations not in ACTIVATIONS:
        allowed = ", ".join(ACTIVATIONS)
        raise KernelError("E0503", f"activations = {activations!r}; allowed: {allowed}")
    if x.shape[-1] != in_features or not x.is_floating_point():
        raise KernelError(
            "E0503", f"x is {x.dtype} {list(x.shape)}, not floating point [.., {in_features}]"
        )


quantized_linear = define(SCHEMA, reference, fake)
