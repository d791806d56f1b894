"""Operators that ONNX Runtime adds to the standard domain."""

from __future__ import annotations

from effc.frontend.onnx.ops.microsoft.norms import simplified_layer_normalization
from effc.frontend.onnx.table import Translation

TABLE: dict[str, Translation] = {
    "SimplifiedLayerNormalization": simplified_layer_normalization,
}
