"""Constants, ranges, and tensors made from a shape."""

from __future__ import annotations

import math
import operator
from typing import Any

import onnx_ir
import torch
from torch import fx

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.elements import KNOWN_INTEGERS, torch_dtype
from effc.frontend.onnx.folding import FOLDED_BYTES
from effc.frontend.onnx.ops.shapes import choose, is_read
from effc.frontend.onnx.ops.unsigned import SIGNED
from effc.frontend.onnx.table import Translation
from effc.frontend.onnx.values import Mismatch, Size, Unsupported, Value

aten = torch.ops.aten


def constant(g: Builder, value: torch.Tensor | None = None, **forms: Any) -> Value:
    """A constant in any of its forms; a large one is read like a weight."""
    if value is None:
        value = _from_numbers(**forms)
    return value if value.numel() <= KNOWN_INTEGERS else g.read_constant(value)


def _from_numbers(
    value_float: float | None = None,
    value_floats: list[float] | None = None,
    value_int: int | None = None,
    value_ints: list[int] | None = None,
    **others: Any,
) -> torch.Tensor:
    if others:
        raise Unsupported(f"a constant of the form {' and '.join(others)}")
    floats = value_floats if value_float is None else value_float
    if floats is not None:
        return torch.tensor(floats, dtype=torch.float32)
    return torch.tensor(value_ints if value_int is None else value_int, dtype=torch.int64)


def constant_of_shape(g: Builder, shape: Value, value: torch.Tensor | None = None) -> Value:
    """A tensor full of one value, by default 0.0."""
    fill = torch.zeros(1) if value is None else value
    sizes = g.ints(shape)
    number = fill.item()
    known = [size for size in sizes if isinstance(size, int)]
    if len(known) == len(sizes) and math.prod(known) * fill.itemsize > FOLDED_BYTES:
        return g.emit(aten.full.default, sizes, number, dtype=fill.dtype)
    return g.call(aten.full.default, sizes, number, dtype=fill.dtype)


def range_(g: Builder, start: Value, limit: Value, delta: Value) -> Value:
    """Numbers from start to before limit; none when the limit is on the wrong side."""
    dtype = g.dtype(start)
    if dtype.is_floating_point:
        return _range_of_floats(g, start, limit, delta, dtype)
    first, last, step = g.int(start), g.int(limit), g.int(delta)
    if step == 0:
        raise Mismatch("a range has a step of 0")
    if not any(isinstance(n, fx.Node) and not is_read(n) for n in (first, last, step)):
        last = _reachable(g, first, last, step)
    if step != 1:
        return g.call(aten.arange.start_step, first, last, step, dtype=dtype)
    if first != 0:
        return g.call(aten.arange.start, first, last, dtype=dtype)
    return g.call(aten.arange.default, last, dtype=dtype)


def _reachable(g: Builder, first: Size, last: Size, step: Size) -> Size:
    """The limit, or the start where steps lead away from the limit; aten refuses those."""
    beyond = g.arith(torch.sym_max, first, last), g.arith(torch.sym_min, first, last)
    return choose(g, g.arith(operator.gt, step, 0), *beyond)


def _range_of_floats(
    g: Builder, start: Value, limit: Value, delta: Value, dtype: torch.dtype
) -> Value:
    """start + i * delta, for as many i as the standard's formula says."""
    distance = g.call(aten.sub.Tensor, limit, start)
    steps = g.call(aten.ceil.default, g.call(aten.div.Tensor, distance, delta))
    count = g.int(g.call(aten.clamp_min.default, g.call(aten.to.dtype, steps, torch.int64), 0))
    places = g.call(aten.arange.default, count, dtype=dtype)
    return g.call(aten.add.Tensor, g.call(aten.mul.Tensor, places, delta), start)


def eye_like(g: Builder, x: Value, dtype: int | None = None, k: int = 0) -> Value:
    """1 on the k-th diagonal of a matrix as large as x, 0 elsewhere."""
    kind = g.dtype(x) if dtype is None else torch_dtype(onnx_ir.DataType(dtype))
    rows, columns = g.shape(x)
    if k == 0 and kind not in SIGNED:
        return g.call(aten.eye.m, rows, columns, dtype=kind)
    row = g.call(aten.unsqueeze.default, g.call(aten.arange.default, rows), 1)
    column = g.call(aten.arange.default, columns)
    hit = g.call(aten.eq.Tensor, g.call(aten.add.Tensor, row, k), column)
    return g.call(aten.to.dtype, hit, kind)


def no_random_numbers(g: Builder, *inputs: Value, **attributes: Any) -> Value:
    """Programs give the same results every time.

    Raises:
        Unsupported: always.
    """
    raise Unsupported("it draws random numbers, and a program has none")


TABLE: dict[str, Translation] = {
    "Bernoulli": no_random_numbers,
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "EyeLike": eye_like,
    "Multinomial": no_random_numbers,
    "RandomNormal": no_random_numbers,
    "RandomNormalLike": no_random_numbers,
    "RandomUniform": no_random_numbers,
    "RandomUniformLike": no_random_numbers,
    "Range": range_,
}
