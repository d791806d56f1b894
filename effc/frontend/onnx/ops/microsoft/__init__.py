"""Operators of ONNX Runtime, domain com.microsoft, one file per family."""

from __future__ import annotations

import torch

from effc.frontend.onnx.ops.microsoft import activations, products, quantized
from effc.frontend.onnx.ops.microsoft.attention import (
    attention,
    multi_head_attention,
)
from effc.frontend.onnx.ops.microsoft.group_query import group_query_attention
from effc.frontend.onnx.ops.microsoft.norms import (
    embed_layer_normalization,
    skip_layer_normalization,
    skip_simplified_layer_normalization,
)
from effc.frontend.onnx.ops.microsoft.packed import gather_block_quantized, matmul_nbits
from effc.frontend.onnx.ops.microsoft.rotary import rotary_embedding
from effc.frontend.onnx.ops.microsoft.standard import standard
from effc.frontend.onnx.table import Translation, op

aten = torch.ops.aten

_ATTENTION: dict[str, Translation] = {
    "Attention": attention,
    "GroupQueryAttention": group_query_attention,
    "MultiHeadAttention": multi_head_attention,
    "RotaryEmbedding": rotary_embedding,
}

_NORMS: dict[str, Translation] = {
    "EmbedLayerNormalization": embed_layer_normalization,
    "SkipLayerNormalization": skip_layer_normalization,
    "SkipSimplifiedLayerNormalization": skip_simplified_layer_normalization,
}

_ACTIVATIONS: dict[str, Translation] = {
    "BiasAdd": activations.bias_add,
    "BiasGelu": activations.bias_gelu,
    "BiasSplitGelu": activations.bias_split_gelu,
    "FastGelu": activations.fast_gelu,
    "Gelu": activations.gelu,
    "QuickGelu": activations.quick_gelu,
}

_PRODUCTS: dict[str, Translation] = {
    "FusedConv": products.fused_conv,
    "FusedGemm": products.fused_gemm,
    "FusedMatMul": products.fused_matmul,
    "Inverse": op(aten.linalg_inv.default),
}

_PACKED: dict[str, Translation] = {
    "GatherBlockQuantized": gather_block_quantized,
    "MatMulNBits": matmul_nbits,
}

# Operators that stood here before the standard had them.
_STANDARD: dict[str, Translation] = {
    "DequantizeLinear": standard("DequantizeLinear"),
    "GatherND": standard("GatherND"),
    "GridSample": standard("GridSample", 16),
    "Pad": standard("Pad"),
    "QuantizeLinear": standard("QuantizeLinear"),
    "Trilu": standard("Trilu"),
}

TABLE: dict[str, Translation] = {
    **_ATTENTION,
    **_NORMS,
    **_ACTIVATIONS,
    **_PRODUCTS,
    **_PACKED,
    **quantized.TABLE,
    **_STANDARD,
}
