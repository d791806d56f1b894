"""`effc::rms_norm` in ONNX: one operator, or its definition before opset 23."""

from __future__ import annotations

import torch

from effc.kernels.onnx import OnnxGraph, Value


def translate(g: OnnxGraph, x: Value, weight: Value, *, eps: float, round_first: bool) -> Value:
    """The normalization in fp32, as the reference.

    Both operators round before the weight multiplies (`round_first`); for elements of 16 bits the
    other order is spelled out.
    """
    if round_first or g.dtype(x) == g.dtype(weight) == torch.float32:
        weight = g.cast(weight, g.dtype(x))
        if g.contrib:
            return g.op("SimplifiedLayerNormalization", x, weight, axis=-1, epsilon=eps,
                        stash_type=1)  # fmt: skip
        if g.opset >= 23:
            return g.op("RMSNormalization", x, weight, axis=-1, epsilon=eps, stash_type=1)
    wide = g.cast(x, torch.float32)
    squares = g.op("ReduceMean", g.op("Mul", wide, wide), g.ints(-1), keepdims=1)
    root = g.op("Sqrt", g.op("Add", squares, g.scalar(eps, squares)))
    normal = g.op("Div", wide, root)
    if round_first:
        return g.op("Mul", g.cast(normal, g.dtype(x)), weight)
    return g.cast(g.op("Mul", normal, g.cast(weight, torch.float32)), g.dtype(x))
