"""Reductions against numpy: every operator, in the form of every opset, over every kind of axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.frontend.onnx.ops.texts import calls, numbers, program, run, same

Reduction = Callable[..., np.ndarray]

REDUCTIONS: dict[str, Reduction] = {
    "ReduceSum": np.sum,
    "ReduceMean": np.mean,
    "ReduceMax": np.max,
    "ReduceMin": np.min,
    "ReduceProd": np.prod,
    "ReduceL1": lambda x, **k: np.sum(np.abs(x), **k),
    "ReduceL2": lambda x, **k: np.sqrt(np.sum(x * x, **k)),
    "ReduceSumSquare": lambda x, **k: np.sum(x * x, **k),
    "ReduceLogSum": lambda x, **k: np.log(np.sum(x, **k)),
    "ReduceLogSumExp": lambda x, **k: np.log(np.sum(np.exp(x), **k)),
}
AXES = [[0], [2], [-1], [0, 2], [-1, 1], [0, 1, 2], None]
WHAT_STAYS: dict[str, Any] = {
    "ReduceL1": np.abs,
    "ReduceL2": np.abs,
    "ReduceSumSquare": np.square,
    "ReduceLogSum": np.log,
}


def text_of(op: str, axes: list[int] | None, keep: int, form: str) -> str:
    """A model with the axes as an attribute, a constant or an input."""
    attributes = [f"keepdims: int = {keep}"]
    listed = ", ".join(map(str, axes or []))
    given, inputs, constant = "", "(x)", ""
    if axes and form == "attribute":
        attributes.append(f"axes: ints = [{listed}]")
    elif axes and form == "constant":
        inputs, constant = "(x, a)", f"<int64[{len(axes)}] a = {{{listed}}}>"
    elif axes:
        inputs, given = "(x, a)", f", int64[{len(axes)}] a"
    node = f"y = {op} <{', '.join(attributes)}> {inputs}"
    return f"m (float[B,T,4] x{given}) => (float y) {constant} {{ {node} }}"


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize("form", ["attribute", "constant", "input"])
def test_forms(op: str, form: str) -> None:
    x = np.abs(numbers(2, 3, 4)) + np.float32(0.5)
    for axes in AXES:
        for keep in (0, 1):
            wide = {"axis": tuple(axes) if axes else None, "keepdims": bool(keep)}
            expected = np.asarray(REDUCTIONS[op](x.astype(np.float64), **wide))
            more = [np.array(axes)] if axes and form == "input" else []
            opset = 11 if form == "attribute" else 18
            found = run(text_of(op, axes, keep, form), x, *more, opset=opset)
            same(found, [expected.astype(np.float32)], rtol=1e-6)


@pytest.mark.parametrize("op", REDUCTIONS)
def test_no_axes_may_mean_no_reduction(op: str) -> None:
    """What happens to single elements happens all the same."""
    x = numbers(2, 3) if op != "ReduceLogSum" else np.abs(numbers(2, 3))
    text = f"m (float[A,B] x) => (float y) {{ y = {op} <noop_with_empty_axes: int = 1> (x) }}"
    expected = WHAT_STAYS.get(op, lambda value: value)(x)
    same(run(text, x), [expected], rtol=2e-7)


@pytest.mark.parametrize("name", ["int32", "int64", "uint32", "uint64"])
def test_integers(name: str) -> None:
    """Sums and products wrap around, as integers do; the largest one needs the right order."""
    limits = np.iinfo(name)
    x = np.array([[1, 2, 5], [limits.max, 1, 3], [4, limits.max - 2, 0]], dtype=name)
    expected = {
        "ReduceSum": np.sum(x, 1, dtype=name),
        "ReduceProd": np.prod(x, 1, dtype=name),
        "ReduceMax": x.max(1),
        "ReduceMin": x.min(1),
        "ReduceL1": np.sum(x, 1, dtype=name),
        "ReduceSumSquare": np.sum(x * x, 1, dtype=name),
    }
    for op, value in expected.items():
        same(run(over_rows(op, name), x), [value])


@pytest.mark.parametrize("name", ["int32", "int64", "uint32", "uint64"])
def test_fractions_of_integers_are_cut(name: str) -> None:
    rows = [[1, 2, 5], [3, 4, 12]] + ([[-7, -2, 0]] if name.startswith("i") else [])
    x = np.array(rows, dtype=name)
    whole = {
        "ReduceMean": [2, 6, -3],
        "ReduceL2": [5, 13, 7],
        "ReduceLogSum": [2, 2],
        "ReduceLogSumExp": [5, 12, 0],
    }
    for op, value in whole.items():
        rows = x[: min(len(value), len(x))]
        same(run(over_rows(op, name), rows), [np.array(value[: len(rows)], dtype=name)])


def over_rows(op: str, kind: str) -> str:
    """A model that reduces every row of a matrix."""
    node = f"y = {op} <keepdims: int = 0> (x, a)"
    return f"m ({kind}[A,N] x) => ({kind} y) <int64[1] a = {{1}}> {{ {node} }}"


def test_truth_values() -> None:
    x = np.array([[True, False], [False, False], [True, True]])
    for op, expected in (("ReduceMax", x.any(1)), ("ReduceMin", x.all(1))):
        same(run(over_rows(op, "bool"), x), [expected])


@pytest.mark.parametrize(
    ("op", "neutral"),
    [
        ("ReduceSum", 0.0),
        ("ReduceProd", 1.0),
        ("ReduceMax", -np.inf),
        ("ReduceMin", np.inf),
        ("ReduceL1", 0.0),
        ("ReduceL2", 0.0),
        ("ReduceSumSquare", 0.0),
        ("ReduceLogSum", -np.inf),
        ("ReduceLogSumExp", -np.inf),
    ],
)
def test_nothing_reduces_to_the_neutral_element(op: str, neutral: float) -> None:
    node = f"y = {op} <keepdims: int = 0> (x, a)"
    text = f"m (float[2,0,3] x) => (float y) <int64[1] a = {{1}}> {{ {node} }}"
    same(run(text, np.zeros((2, 0, 3), np.float32)), [np.full((2, 3), neutral, np.float32)])


def test_one_call() -> None:
    text = "m (float[B,T,8] x) => (float[B,T,1] y) <int64[1] a = {-1}> { y = ReduceMean (x, a) }"
    assert calls(text) == ["a = aten.mean.dim(x, [-1], True)", "return (a,)"]
    found = program(text)
    for b, t in [(1, 1), (3, 2)]:
        x = numbers(b, t, 8)
        same(run(found, x), [x.mean(-1, keepdims=True)], rtol=1e-6)
