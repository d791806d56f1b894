"""`aten.linear` in ONNX, without a second copy of its weight."""

from __future__ import annotations

import torch

from effc.kernels.onnx import OnnxGraph, Value


def translate(g: OnnxGraph, x: Value, weight: Value, bias: Value | None) -> Value:
    """x @ weight.T + bias.

    `MatMul` wants [in, out]. A weight that only linears read is written that way; one that others
    read too (a tied embedding) stays as it is and is multiplied transposed.
    """
    values = g.weight(weight)
    if values is None:
        result = g.op("MatMul", x, g.op("Transpose", weight, perm=[1, 0]))
    elif all(node.op_type == "linear" for node, _ in weight.uses()):
        rows, columns = values.shape
        kind = weight.dtype.name
        turned = g.stored(weight, "t", lambda: values.t().contiguous(), (columns, rows), kind)
        result = g.op("MatMul", x, turned)
    elif g.contrib and g.dtype(x) == torch.float32:
        result = g.op("FusedMatMul", x, weight, domain="com.microsoft", transB=1)
    else:
        result = _flat(g, x, weight, *values.shape)
    return result if bias is None else g.op("Add", result, bias)


def _flat(g: OnnxGraph, x: Value, weight: Value, rows: int, columns: int) -> Value:
    """As a product of matrices, the only one that takes its second factor transposed."""
    flat = g.op("Gemm", g.op("Reshape", x, g.ints(-1, columns)), weight, transB=1)
    if len(g.shape(x)) == 2:
        return flat
    lead = g.op("Shape", x, start=0, end=-1)
    return g.op("Reshape", flat, g.op("Concat", lead, g.ints(rows), axis=0))
