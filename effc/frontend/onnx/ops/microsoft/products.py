"""Products of matrices and convolutions, fused with transposes, factors and activations."""

from __future__ import annotations

from typing import Any

import torch

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.ops.microsoft.activations import activated
from effc.frontend.onnx.ops.microsoft.standard import standard
from effc.frontend.onnx.values import Value

aten = torch.ops.aten


def fused_matmul(
    g: Builder,
    a: Value,
    b: Value,
    *,
    alpha: float = 1.0,
    transA: int = 0,  # noqa: N803, the names of the operator
    transB: int = 0,  # noqa: N803
    transBatchA: int = 0,  # noqa: N803
    transBatchB: int = 0,  # noqa: N803
) -> Value:
    """com.microsoft.FusedMatMul: alpha * op(A) op(B).

    With `transBatch`, the rows are the first dimension and the batch follows it.
    """
    left, right = _turned(g, a, transA, transBatchA), _turned(g, b, transB, transBatchB)
    product = g.call(aten.matmul.default, left, right)
    return product if alpha == 1.0 else g.call(aten.mul.Scalar, product, alpha)


def _turned(g: Builder, x: Value, swap: int, batch: int) -> Value:
    rank = g.rank(x)
    order = list(range(rank))
    if batch and rank > 2:
        order = [*order[1:-1], 0, rank - 1]
    if swap and rank > 1:
        order[-2:] = order[-1], order[-2]
    return x if order == sorted(order) else g.call(aten.permute.default, x, order)


def fused_gemm(
    g: Builder,
    *inputs: Value,
    activation: str = "",
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
    **attributes: Any,
) -> Value:
    """com.microsoft.FusedGemm: Gemm and an activation."""
    product = standard("Gemm")(g, *inputs, **attributes)
    given = (activation_alpha, activation_beta, activation_gamma)
    return activated(g, product, activation, [value for value in given if value is not None])


def fused_conv(
    g: Builder,
    x: Value,
    weight: Value,
    bias: Value = None,
    z: Value = None,
    *,
    activation: str = "",
    activation_params: list[float] | None = None,
    **attributes: Any,
) -> Value:
    """com.microsoft.FusedConv: Conv, plus Z, and an activation."""
    found = standard("Conv")(g, x, weight, bias, **attributes)
    found = found if z is None else g.call(aten.add.Tensor, found, z)
    return activated(g, found, activation, activation_params or [])
