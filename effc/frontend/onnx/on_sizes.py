"""Operators on sizes: arithmetic that exporters write about shapes, done without tensors.

A value of `Sizes` is known element by element, each a number or a node. The operators here keep
it so; whatever else is done with sizes makes a tensor of them first.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import fx

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.values import Sizes, Value, object_array

_LARGEST = 4096


def translate(
    g: Builder, op_type: str, inputs: Sequence[Value], attributes: Mapping[str, Any]
) -> Value | tuple[Value, ...] | None:
    """The result of an operator on sizes; None when it is none, or needs tensors."""
    if op_type == "Shape":
        return _shape(g, inputs[0], **attributes)
    if op_type == "Size":
        return _count(g, inputs[0])
    rule = _RULES.get(op_type)
    if rule is None or not any(isinstance(value, Sizes) for value in inputs):
        return None
    try:
        return rule(g, *inputs, **attributes)
    except (ArithmeticError, LookupError, TypeError, ValueError):
        return None  # the translation of the operator says what is wrong


def _shape(g: Builder, x: Value, start: int = 0, end: int | None = None) -> Value | None:
    typed = not isinstance(x, fx.Node) or isinstance(x.meta.get("val"), torch.Tensor)
    if isinstance(x, fx.Node) and not typed and x.meta.get("rank") is None:
        return None
    return g.sizes([g.size(x, dim) for dim in range(g.rank(x))[start:end]])


def _count(g: Builder, x: Value) -> Value:
    return g.sizes(reduce(lambda a, b: g.arith(operator.mul, a, b), g.shape(x), 1))


def _array(g: Builder, value: Value) -> np.ndarray | None:
    """The elements of an integer value, None when it is computed as a tensor."""
    if isinstance(value, Sizes):
        return value.items
    known = g.constant(value)
    if known is None or known.is_floating_point() or known.numel() > _LARGEST:
        return None
    array = np.empty(tuple(known.shape), dtype=object)
    array[...] = known.numpy()
    return array


def _binary(function: Callable[[Any, Any], Any]) -> Callable[..., Value | None]:
    def rule(g: Builder, a: Value, b: Value, **_: Any) -> Value | None:
        left, right = _array(g, a), _array(g, b)
        if left is None or right is None:
            return None
        apply = np.frompyfunc(lambda x, y: g.arith(function, _plain(x), _plain(y)), 2, 1)
        return g.sizes(np.asarray(apply(left, right), dtype=object), g.dtype(a))

    return rule


def _plain(item: Any) -> Any:
    return item if isinstance(item, fx.Node) else int(item)


def _div(g: Builder, a: Value, b: Value) -> Value | None:
    """Sizes are not negative, so rounding down is rounding to zero."""
    divisor = g.constant(b)
    if divisor is None or bool((divisor <= 0).any()):
        return None
    return _binary(operator.floordiv)(g, a, b)


def _mod(g: Builder, a: Value, b: Value, fmod: int = 0) -> Value | None:
    divisor = g.constant(b)
    if divisor is None or bool((divisor <= 0).any()):
        return None
    return _binary(operator.mod)(g, a, b)


def _keep(method: Callable[..., np.ndarray | None]) -> Callable[..., Value | None]:
    """A rule that moves elements about."""

    def rule(g: Builder, x: Value, *rest: Value, **attributes: Any) -> Value | None:
        items = _array(g, x)
        moved = None if items is None else method(g, items, *rest, **attributes)
        return None if moved is None else g.sizes(np.asarray(moved, dtype=object), g.dtype(x))

    return rule


def _gather(g: Builder, x: np.ndarray, indices: Value, axis: int = 0) -> np.ndarray | None:
    known = g.constant(indices)
    if known is None:
        return None
    taken = np.take(x, known.numpy(), axis=axis)
    return taken if isinstance(taken, np.ndarray) else object_array(taken)


def _slice(
    g: Builder,
    x: np.ndarray,
    starts: Any = None,
    ends: Any = None,
    axes: Any = None,
    steps: Any = None,
) -> np.ndarray | None:
    lists = [g.ints(value) if value is not None else None for value in (starts, ends, axes, steps)]
    if any(not isinstance(i, int) for part in lists if part for i in part):
        return None
    first, last = lists[0] or [], lists[1] or []
    where = [slice(None)] * x.ndim
    for i, (start, end) in enumerate(zip(first, last, strict=True)):
        axis = lists[2][i] if lists[2] else i
        where[axis] = slice(start, end, lists[3][i] if lists[3] else 1)  # type: ignore[index,misc]
    return x[tuple(where)]


def _concat(g: Builder, *parts: Value, axis: int = 0) -> Value | None:
    arrays = [_array(g, part) for part in parts]
    if any(array is None for array in arrays):
        return None
    return g.sizes(np.concatenate(arrays, axis=axis), g.dtype(parts[0]))  # type: ignore[arg-type]


def _unsqueeze(g: Builder, x: np.ndarray, axes: Any = None) -> np.ndarray | None:
    wanted = g.known_ints(axes, "the axes")
    return np.expand_dims(x, tuple(wanted))


def _squeeze(g: Builder, x: np.ndarray, axes: Any = None) -> np.ndarray | None:
    wanted = None if axes is None else tuple(g.known_ints(axes, "the axes"))
    squeezed = np.squeeze(x, axis=wanted)
    return squeezed if isinstance(squeezed, np.ndarray) else object_array(squeezed)


def _reshape(g: Builder, x: np.ndarray, shape: Value, allowzero: int = 0) -> np.ndarray | None:
    known = g.constant(shape)
    return None if known is None else x.reshape([int(i) for i in known.tolist()])


def _cast(g: Builder, x: Value, to: int = 0, **_: Any) -> Value | None:
    integers = {6: torch.int32, 7: torch.int64}
    return Sizes(x.items, integers[to]) if isinstance(x, Sizes) and to in integers else None


def _product(g: Builder, x: Value, axes: Any = None, keepdims: int = 1, **_: Any) -> Value | None:
    items = _array(g, x)
    if items is None or items.ndim != 1:
        return None
    total = reduce(lambda a, b: g.arith(operator.mul, a, b), items.tolist(), 1)
    return g.sizes([total] if keepdims else total, g.dtype(x))


def _equal(g: Builder, a: Value, b: Value) -> Value | None:
    """Known where both elements are, or where a size meets a negative number."""
    left, right = _array(g, a), _array(g, b)
    if left is None or right is None:
        return None
    left, right = np.broadcast_arrays(left, right)
    found = [_same(x, y) for x, y in zip(left.flat, right.flat, strict=True)]
    if any(item is None for item in found):
        return None
    return torch.tensor(found, dtype=torch.bool).reshape(left.shape)


def _same(a: Any, b: Any) -> bool | None:
    nodes = isinstance(a, fx.Node) + isinstance(b, fx.Node)
    if nodes == 0:
        return bool(a == b)
    if nodes == 2:
        return True if a is b else None
    number = b if isinstance(a, fx.Node) else a
    return False if number < 0 else None


def _where(g: Builder, condition: Value, a: Value, b: Value) -> Value | None:
    chosen, left, right = g.constant(condition), _array(g, a), _array(g, b)
    if chosen is None or left is None or right is None:
        return None
    return g.sizes(np.where(chosen.numpy(), left, right).astype(object), g.dtype(a))


def _identity(g: Builder, x: Value) -> Value:
    return x


_RULES: dict[str, Callable[..., Value | tuple[Value, ...] | None]] = {
    "Add": _binary(operator.add),
    "Cast": _cast,
    "Concat": _concat,
    "Div": _div,
    "Equal": _equal,
    "Gather": _keep(_gather),
    "Identity": _identity,
    "Max": _binary(torch.sym_max),
    "Min": _binary(torch.sym_min),
    "Mod": _mod,
    "Mul": _binary(operator.mul),
    "ReduceProd": _product,
    "Reshape": _keep(_reshape),
    "Slice": _keep(_slice),
    "Squeeze": _keep(_squeeze),
    "Sub": _binary(operator.sub),
    "Unsqueeze": _keep(_unsqueeze),
    "Where": _where,
}
