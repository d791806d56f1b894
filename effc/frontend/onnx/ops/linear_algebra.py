"""Products of matrices."""

from __future__ import annotations

from typing import Any

import torch

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.ops.unsigned import by_bits, cast
from effc.frontend.onnx.table import Translation, op
from effc.frontend.onnx.values import Value

aten = torch.ops.aten


def gemm(
    g: Builder, a: Value, b: Value, c: Value = None, alpha: float = 1.0, beta: float = 1.0,
    transA: int = 0, transB: int = 0,  # noqa: N803, the names of the standard
) -> Value:  # fmt: skip
    """alpha * A B + beta * C; a linear layer where it has the form of one."""
    a = _turned(g, a) if transA else a
    plain = alpha == 1.0 and beta == 1.0 and g.dtype(a).is_floating_point
    if plain and transB and (c is None or g.rank(c) == 1 and g.size(c, 0) == g.size(b, 0)):
        return g.call(aten.linear.default, a, b, *([] if c is None else [c]))
    b = _turned(g, b) if transB else b
    if plain and c is not None:
        return g.call(aten.addmm.default, c, a, b)
    found = _scaled(g, g.call(aten.matmul.default, a, b), alpha)
    return found if c is None else g.call(aten.add.Tensor, found, _scaled(g, c, beta))


def _turned(g: Builder, x: Value) -> Value:
    return g.call(aten.permute.default, x, [1, 0])


def _scaled(g: Builder, x: Value, factor: float) -> Any:
    if factor == 1.0:
        return x
    exact = factor if g.dtype(x).is_floating_point else int(factor)
    return g.call(aten.mul.Scalar, x, exact)


def matmul_integer(
    g: Builder, a: Value, b: Value, a_zero_point: Value = None, b_zero_point: Value = None
) -> Value:
    """Integers of 8 bits less their zero points (per row of A, per column of B), in int32."""
    left = _centered(g, a, a_zero_point, rows=True)
    return g.call(aten.matmul.default, left, _centered(g, b, b_zero_point, rows=False))


def _centered(g: Builder, x: Value, zero_point: Value, rows: bool) -> Any:
    wide = cast(g, x, torch.int32)
    if zero_point is None:
        return wide
    zero = cast(g, zero_point, torch.int32)
    if rows and g.rank(zero) == 1 and g.rank(x) > 1 and g.size(zero, 0) != 1:
        zero = g.call(aten.unsqueeze.default, zero, -1)
    return g.call(aten.sub.Tensor, wide, zero)


def einsum(g: Builder, *operands: Value, equation: str = "") -> Value:
    """`aten.einsum`."""
    return g.call(aten.einsum.default, equation.replace(" ", ""), list(operands))


TABLE: dict[str, Translation] = {
    "Det": op(aten.linalg_det.default),
    "Einsum": einsum,
    "Gemm": gemm,
    "MatMul": by_bits(op(aten.matmul.default)),
    "MatMulInteger": matmul_integer,
}
