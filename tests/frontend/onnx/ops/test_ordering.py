"""TopK, ArgMax, Unique, CumSum: ties, directions, and the forms of every opset."""

from __future__ import annotations

import numpy as np
import pytest

from tests.frontend.onnx.ops.texts import program, run, same

ROWS = np.array([[3, 1, 3, 2, 1], [0, 0, 0, 0, 0], [1, 2, 3, 4, 5]])


def first(row: np.ndarray, k: int, largest: int) -> list[int]:
    """Indices of the k first ones; of equal ones the lower index comes first."""
    key = (lambda i: (-int(row[i]), i)) if largest else (lambda i: (int(row[i]), i))
    return sorted(range(len(row)), key=key)[:k]


@pytest.mark.parametrize("kind", ["float", "int64", "uint8", "uint64"])
@pytest.mark.parametrize("largest", [0, 1])
def test_top_k(kind: str, largest: int) -> None:
    x = ROWS.astype({"float": "float32"}.get(kind, kind))
    if kind == "uint64":
        x[2, 1] = 2**64 - 1
    text = f"""m ({kind}[A,B] x, int64[1] k) => ({kind} y, int64 i)
      {{ y, i = TopK <axis: int = 1, largest: int = {largest}> (x, k) }}"""
    found = program(text)
    for k in range(6):
        index = np.array([first(row, k, largest) for row in x], np.int64).reshape(3, k)
        expected = [np.take_along_axis(x, index, 1), index]
        same(run(found, x, np.array([k])), expected)
    if kind == "float" and largest:
        text = "m (float[A,B] x) => (float y, int64 i) { y, i = TopK <k: int = 2> (x) }"
        index = np.array([first(row, 2, 1) for row in x])
        same(run(text, x, opset=9), [np.take_along_axis(x, index, 1), index])


@pytest.mark.parametrize("kind", ["float", "int8", "uint32", "uint64"])
@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_arg_extremes(kind: str, last: int, axis: int) -> None:
    x = ROWS.astype({"float": "float32"}.get(kind, kind))
    for op, function in (("ArgMax", np.argmax), ("ArgMin", np.argmin)):
        text = f"""m ({kind}[A,B] x) => (int64 y)
          {{ y = {op} <axis: int = {axis}, keepdims: int = 0,
             select_last_index: int = {last}> (x) }}"""
        expected = function(x, axis)
        if last:
            expected = x.shape[axis] - 1 - function(np.flip(x, axis), axis)
        same(run(text, x, opset=13), [expected])


@pytest.mark.parametrize("op", ["CumSum", "CumProd"])
@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
def test_cumulative(op: str, exclusive: int, reverse: int) -> None:
    x = ROWS.astype(np.float32) + 1
    node = f"y = {op} <exclusive: int = {exclusive}, reverse: int = {reverse}> (x, a)"
    function, neutral = (np.cumsum, 0) if op == "CumSum" else (np.cumprod, 1)
    for axis in (0, 1, -1, -2):
        turned = np.flip(x, axis) if reverse else x
        if exclusive:
            turned = np.roll(turned, 1, axis)
            turned[(slice(None),) * (axis % 2) + (0,)] = neutral
        expected = function(turned, axis)
        expected = np.flip(expected, axis) if reverse else expected
        text = f"m (float[A,B] x, int64 a) => (float y) {{ {node} }}"
        same(run(text, x, np.int64(axis), opset=26), [expected])
        text = f"m (float[A,B] x) => (float y) <int64 a = {{{axis}}}> {{ {node} }}"
        same(run(text, x, opset=26), [expected])


@pytest.mark.parametrize("kind", ["float", "int64", "uint64"])
def test_unique(kind: str) -> None:
    x = np.array([2, 1, 1, 3, 4, 3, 2], {"float": "float32"}.get(kind, kind))
    outputs = f"({kind} y, int64 i, int64 r, int64 c)"
    text = f"m ({kind}[N] x) => {outputs} {{ y, i, r, c = Unique (x) }}"
    same(run(text, x), list(np.unique(x, True, True, True)))
    text = f"m ({kind}[N] x) => {outputs} {{ y, i, r, c = Unique <sorted: int = 0> (x) }}"
    expected = [[2, 1, 3, 4], [0, 1, 3, 4], [0, 1, 1, 2, 3, 2, 0], [2, 2, 2, 1]]
    whole = [np.array(part, np.int64) for part in expected]
    same(run(text, x), [whole[0].astype(x.dtype), *whole[1:]])


def test_unique_slices() -> None:
    x = np.array([[1, 0], [1, 0], [0, 3]], np.float32)
    text = """m (float[A,B] x) => (float y, int64 i, int64 r, int64 c)
      { y, i, r, c = Unique <axis: int = 0> (x) }"""
    places = [np.array(part) for part in ([2, 0], [1, 1, 0], [1, 2])]
    same(run(text, x), [x[[2, 0]], *places])
