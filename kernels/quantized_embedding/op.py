"""`effc::quantized_embedding`: look up rows of a table packed in the `GroupAffine` layout.

A tied embedding and head read one packed table, through this operator and `quantized_linear`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from effc.diagnostics import KernelError
from effc.kernels.packing.group_affine import check_planes, dequantize, row_blocks
from effc.kernels.registry import define

SCHEMA = (
    "quantized_embedding(Tensor ids, Tensor codes, Tensor scale, Tensor? zero, int bits, "
    "int group, int width, ScalarType dtype) -> Tensor"
)


def reference(
    ids: Tensor,
    codes: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    bits: int,
    group: int,
    width: int,
    dtype: torch.dtype,
) -> Tensor:
    """Dequantize the rows asked for, and no others.

    Args:
        ids: int64 [..].
        codes: uint8 [rows, bytes].
        scale: float16 or float32 [rows, G].
        zero: optional uint8 [rows, bytes].
        bits: 8, 4, 3 or 2.
        group: columns that share a scale; `width` when a row is one group.
        width: columns of the table.
        dtype: of the result.

    Returns:
        [.., width] in `dtype`.

    Raises:
        KernelError: E0503, when the planes do not fit or an id lies outside the table.
    """
    check_planes(codes, scale, zero, bits, group, width)
    outside = ids[(ids < 0) | (ids >= codes.shape[0])]
    if outside.numel():
        raise KernelError(
            "E0503", f"id {outside[0].item()} lies outside the table of {codes.shape[0]} rows"
        )
    rows = ids.reshape(-1)
    result = torch.empty(len(rows), width, dtype=dtype, device=codes.device)
    for block in row_blocks(len(rows), width):
        result[block] = dequantize(codes, scale, zero, bits, width, rows[block])
    return result.reshape(*ids.shape, width)


def fake(
    ids: Tensor,
    codes: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    bits: int,
    group: int,
    width: int,
    dtype: torch.dtype,
) -> Tensor:
    """[.., width] in `dtype`."""
    return codes.new_empty(*ids.shape, width, dtype=dtype)


quantized_embedding = define(SCHEMA, reference, fake)
