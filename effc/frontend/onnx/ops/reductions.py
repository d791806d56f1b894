"""Reductions over dimensions.

The dimensions are an attribute or, from opset 13 (sums) or 18 (the others) on, an input. Without
any the whole tensor is reduced, or with `noop_with_empty_axes` nothing is, though what a reduction
does before and after (squares, a logarithm) still happens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.ops.elementwise import absolute
from effc.frontend.onnx.ops.unsigned import SIGNED, bits, by_bits, by_keys, cast
from effc.frontend.onnx.table import Translation
from effc.frontend.onnx.values import Size, Value

aten = torch.ops.aten

Reduce = Callable[[Builder, Any, list[Size], bool], Any]


def reduction(
    reduce: Reduce, before: Any = None, after: Any = None, alone: Any = None
) -> Translation:
    """A translation from what reduces over a list of dimensions (never an empty one).

    Args:
        reduce: (builder, tensor, dimensions, keep them with size 1) -> tensor.
        before: what happens to every element first.
        after: what happens to the result.
        alone: what becomes of an element that is reduced with no other, by default nothing.
    """

    def translate(
        g: Builder, x: Value, axes: Any = None, keepdims: int = 1, noop_with_empty_axes: int = 0
    ) -> Value:
        dims: list[Size] = [] if axes is None else g.ints(axes)
        x = before(g, x) if before else x
        if not dims and not noop_with_empty_axes:
            dims = list(range(g.rank(x)))
        if dims:
            rank = g.rank(x) - (0 if keepdims else len(dims))
            x = g.typed(reduce(g, x, dims, bool(keepdims)), g.dtype(x), rank)
        elif alone:
            x = alone(g, x)
        return after(g, x) if after else x

    return translate


def _sum(g: Builder, x: Value, dims: list[Size], keep: bool) -> Value:
    dtype = g.dtype(x)
    if dtype.is_floating_point:
        return g.call(aten.sum.dim_IntList, x, dims, keep)
    signed = SIGNED.get(dtype, dtype)
    found = g.call(aten.sum.dim_IntList, bits(g, x), dims, keep, dtype=signed)
    return found if signed == dtype else g.call(aten.view.dtype, found, dtype)


def _mean(g: Builder, x: Value, dims: list[Size], keep: bool) -> Value:
    """Means of integers are rounded to zero."""
    return _back(g, g.call(aten.mean.dim, _wide(g, x), dims, keep), x)


def _product(g: Builder, x: Value, dims: list[Size], keep: bool) -> Value:
    """`aten.prod` takes one dimension at a time."""
    for dim in dims:
        found = g.call(aten.prod.dim_int, x, dim, True, dtype=g.dtype(x))
        x = g.typed(found, g.dtype(x), g.rank(x))
    if keep:
        return x
    return g.call(aten.squeeze.dims, x, dims)


def _extreme(target: Any, largest: bool) -> Reduce:
    def reduce(g: Builder, x: Value, dims: list[Size], keep: bool) -> Value:
        if 0 not in g.shape(x):
            return g.call(target, x, dims, keep)
        # `aten.amax` refuses to reduce nothing. The sum has the right shape.
        shape = g.call(aten.sum.dim_IntList, x, dims, keep, dtype=g.dtype(x))
        return g.call(aten.full_like.default, shape, _neutral(g.dtype(x), largest))

    return reduce


def _neutral(dtype: torch.dtype, largest: bool) -> float | int | bool:
    """What the largest (or smallest) of no elements is."""
    if dtype == torch.bool:
        return not largest
    if dtype.is_floating_point:
        return float("-inf") if largest else float("inf")
    limits = torch.iinfo(dtype)
    return limits.min if largest else limits.max


def _length(g: Builder, x: Value, dims: list[Size], keep: bool) -> Value:
    return _back(g, g.call(aten.linalg_vector_norm.default, _wide(g, x), 2, dims, keep), x)


def _log_sum_exp(g: Builder, x: Value, dims: list[Size], keep: bool) -> Value:
    return _back(g, g.call(aten.logsumexp.default, _wide(g, x), dims, keep), x)


def _log(g: Builder, x: Value) -> Value:
    return _back(g, g.call(aten.log.default, _wide(g, x)), x)


def _wide(g: Builder, x: Value) -> Value:
    """Integers as numbers with fractions."""
    return x if g.dtype(x).is_floating_point else cast(g, x, torch.float64)


def _back(g: Builder, found: Value, x: Value) -> Value:
    """A result in the element type of the operand."""
    return found if g.dtype(x).is_floating_point else cast(g, found, g.dtype(x))


@by_bits
def _square(g: Builder, x: Value) -> Value:
    return g.call(aten.mul.Tensor, x, x)


TABLE: dict[str, Translation] = {
    "ReduceL1": reduction(_sum, before=absolute),
    "ReduceL2": reduction(_length, alone=absolute),
    "ReduceLogSum": reduction(_sum, after=_log),
    "ReduceLogSumExp": reduction(_log_sum_exp),
    "ReduceMax": by_keys(reduction(_extreme(aten.amax.default, largest=True))),
    "ReduceMean": reduction(_mean),
    "ReduceMin": by_keys(reduction(_extreme(aten.amin.default, largest=False))),
    "ReduceProd": by_bits(reduction(_product)),
    "ReduceSum": reduction(_sum),
    "ReduceSumSquare": reduction(_sum, before=_square),
}
