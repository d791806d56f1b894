"""`effc::quantized_embedding` in ONNX: `GatherBlockQuantized`, or gathered bytes taken apart."""

from __future__ import annotations

import torch

from effc.kernels.onnx import OnnxGraph, Value
from effc.kernels.packing.onnx import Blocks, known, matmul_nbits
from effc.kernels.quantized_linear.onnx import LONGEST_BLOCK, note_width


def translate(
    g: OnnxGraph,
    ids: Value,
    codes: Value,
    scale: Value,
    zero: Value | None,
    *,
    bits: int,
    group: int,
    width: int,
    dtype: torch.dtype,
) -> Value:
    """The rows asked for.

    The codes have the form of `MatMulNBits`, so that a head tied to the table reads the same ones.
    """
    longest = LONGEST_BLOCK if g.contrib else group
    blocks = Blocks.of(bits, group, width, widths=(2, 4, 8), largest=longest)
    note_width(g, blocks)
    gather = _gather_blocks if g.contrib else _gather_bytes
    wide = torch.promote_types(dtype, g.dtype(scale))
    return g.cast(gather(g, blocks, ids, codes, scale, zero, wide), dtype)


def _gather_blocks(
    g: OnnxGraph,
    blocks: Blocks,
    ids: Value,
    codes: Value,
    scale: Value,
    zero: Value | None,
    dtype: torch.dtype,
) -> Value:
    """Blocks as rows of a matrix per token: data [V, blocks, bytes], scales [V, blocks, 1]."""
    data, scales, _ = matmul_nbits(g, blocks, codes, scale, zero, dtype)
    scales = g.op("Unsqueeze", scales, g.ints(2))
    zeros = None if zero is None else single_zeros(g, blocks, zero)
    rows = g.op(
        "GatherBlockQuantized", data, ids, scales, zeros, domain="com.microsoft",
        bits=blocks.bits, block_size=blocks.size, quantize_axis=2, gather_axis=0,
    )  # fmt: skip
    return _rows(g, blocks, ids, rows)


def _gather_bytes(
    g: OnnxGraph,
    blocks: Blocks,
    ids: Value,
    codes: Value,
    scale: Value,
    zero: Value | None,
    dtype: torch.dtype,
) -> Value:
    """Gather packed rows, then shift, mask and scale: [.., bytes] -> [.., width]."""
    data, scales, _ = matmul_nbits(g, blocks, codes, scale, zero, dtype)
    lead = [0] * len(g.shape(ids))
    values = g.op("Gather", data, ids)  # [.., blocks, bytes]
    if blocks.bits < 8:
        shifts = g.octets(*range(0, 8, blocks.bits))
        parts = g.op("BitShift", g.op("Unsqueeze", values, g.ints(-1)), shifts, direction="RIGHT")
        parts = g.op("BitwiseAnd", parts, g.octets(2**blocks.bits - 1))
        values = g.op("Reshape", parts, g.ints(*lead, blocks.count, blocks.size))
    centred = g.op("Sub", g.cast(values, dtype), _zero_points(g, blocks, ids, zero, dtype))
    scaled = g.op("Mul", centred, g.op("Unsqueeze", g.op("Gather", scales, ids), g.ints(-1)))
    return _rows(g, blocks, ids, scaled)


def _zero_points(
    g: OnnxGraph, blocks: Blocks, ids: Value, zero: Value | None, dtype: torch.dtype
) -> Value:
    """What is subtracted from the codes: a constant, or [.., blocks, 1]."""
    if zero is None:
        return g.scalar(2.0 ** (blocks.bits - 1), dtype)
    return g.cast(g.op("Gather", single_zeros(g, blocks, zero), ids), dtype)


def single_zeros(g: OnnxGraph, blocks: Blocks, zero: Value) -> Value:
    """Zero points [V, blocks, 1], one per byte."""
    values = known(g, zero)
    shape = (values.shape[0], blocks.count, 1)
    form = f"single.g{blocks.size}"
    return g.stored(zero, form, lambda: blocks.zeros(values)[..., None], shape, "UINT8")


def _rows(g: OnnxGraph, blocks: Blocks, ids: Value, values: Value) -> Value:
    """[.., blocks, size] -> [.., width]."""
    columns = blocks.count * blocks.size
    joined = g.op("Reshape", values, g.ints(*[0] * len(g.shape(ids)), columns))
    if columns == blocks.columns:
        return joined
    return g.op("Slice", joined, g.ints(0), g.ints(blocks.columns), g.ints(-1))
