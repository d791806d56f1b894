"""`effc::quantized_linear` in ONNX: `MatMulNBits`, or blockwise `DequantizeLinear` and `MatMul`."""

from __future__ import annotations

import torch

from effc.kernels.onnx import OnnxGraph, Value
from effc.kernels.packing.onnx import Blocks, columns_first, matmul_nbits

# The longest block that the kernels of onnxruntime take.
LONGEST_BLOCK = 256

# The standard version with elements of 2 bits; those of 4 bits and blocks came with 21.
TWO_BITS_SINCE = 25


def translate(
    g: OnnxGraph,
    x: Value,
    codes: Value,
    scale: Value,
    zero: Value | None,
    bias: Value | None,
    *,
    bits: int,
    group: int,
    in_features: int,
    activations: str,
) -> Value:
    """x @ dequantize(codes, scale, zero).T + bias.

    Both forms have scales of the input's type; where the artifact's are wider, the product is.
    """
    dtype = g.dtype(x)
    x = g.cast(x, torch.promote_types(dtype, g.dtype(scale)))
    bias = None if bias is None else g.cast(bias, g.dtype(x))
    rows = int(g.shape(codes)[0])
    # onnxruntime 1.31 joins DequantizeLinear and MatMul into MatMulNBits, and reads codes of 2
    # bits wrongly where a row of the transposed weight does not end with a byte.
    two_bits = g.contrib or (g.opset >= TWO_BITS_SINCE and rows % 4 == 0)
    widths = (2, 4, 8) if two_bits else (4, 8)
    blocks = Blocks.of(bits, group, in_features, widths=widths, largest=LONGEST_BLOCK)
    note_width(g, blocks)
    rounded = activations == "int8"
    if g.contrib:
        if rounded and blocks.size < group:
            g.note(f"activations are rounded per {blocks.size} columns instead of {group}")
        planes = matmul_nbits(g, blocks, codes, scale, zero, g.dtype(x))
        product = g.op(
            "MatMulNBits", x, *planes, None, bias, domain="com.microsoft",
            K=in_features, N=rows, bits=blocks.bits, block_size=blocks.size,
            **({"accuracy_level": 4} if rounded else {}),
        )  # fmt: skip
        return g.cast(product, dtype)
    g.note(
        "standard operators do not say how activations meet a packed weight: onnxruntime rounds "
        "them to 8 bits unless session.qdq_matmulnbits_accuracy_level is 1"
    )
    planes = columns_first(g, blocks, codes, scale, zero, g.dtype(x))
    weight = g.op("DequantizeLinear", *planes, axis=0, block_size=blocks.size)
    result = g.op("MatMul", x, weight)
    return g.cast(result if bias is None else g.op("Add", result, bias), dtype)


def note_width(g: OnnxGraph, blocks: Blocks) -> None:
    """Say when codes take more bits than in the artifact."""
    if blocks.bits != blocks.source_bits:
        g.note(
            f"codes of {blocks.source_bits} bits are stored with {blocks.bits}, "
            f"{blocks.bits / blocks.source_bits:.2f} times their bytes; their values are the same"
        )
