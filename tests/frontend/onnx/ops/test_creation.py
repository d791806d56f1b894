"""Constants in all their forms, ranges in all directions, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from effc.diagnostics import ModelError
from tests.frontend.onnx.ops.texts import calls, numbers, program, run, same


@pytest.mark.parametrize(
    ("form", "kind", "expected"),
    [
        ("value_float: float = 1.5", "float", np.float32(1.5)),
        ("value_floats: floats = [1.5, 2.5]", "float", np.array([1.5, 2.5], np.float32)),
        ("value_int: int = 7", "int64", np.int64(7)),
        ("value_ints: ints = [7, -1]", "int64", np.array([7, -1])),
        ("value: tensor = bool[2] {1, 0}", "bool", np.array([True, False])),
    ],
)
def test_constants(form: str, kind: str, expected: np.ndarray) -> None:
    text = (
        f"m (float[N] x) => ({kind} y, float[N] z) {{ y = Constant <{form}> () z = Identity (x) }}"
    )
    x = numbers(2)
    same(run(text, x), [np.asarray(expected), x])


def test_a_large_constant_is_read_once() -> None:
    values = ", ".join(["1"] * 5000)
    text = f"""m (float[5000] x) => (float[5000] y)
      {{ c = Constant <value: tensor = float[5000] {{{values}}}> ()
         a = Mul (x, c) y = Add (a, c) }}"""
    assert sum("weights[" in line for line in calls(text)) == 1


def test_constant_of_shape() -> None:
    text = """m (float[B,T] x) => (float y, int32 z)
      { s = Shape (x) y = ConstantOfShape (s)
        z = ConstantOfShape <value: tensor = int32[1] {7}> (s) }"""
    found = program(text)
    for b, t in [(1, 1), (3, 2), (0, 2)]:
        y, z = np.zeros((b, t), np.float32), np.full((b, t), 7, np.int32)
        same(run(found, numbers(b, t)), [y, z])
    assert calls(text)[2] == "c = aten.full.default([a, b], 0.0, dtype=torch.float32)"


def test_a_huge_constant_of_shape_is_not_made_while_importing() -> None:
    text = """m (float[N] x) => (float y) <int64[1] huge = {1099511627776}>
      { y = ConstantOfShape (huge) }"""
    assert calls(text)[0] == "a = aten.full.default([1099511627776], 0.0, dtype=torch.float32)"


RANGES = [(0, 5, 1), (2, 9, 3), (5, 0, -2), (5, 0, 1), (0, 5, -1), (3, 3, 1), (-4, 4, 4)]


@pytest.mark.parametrize("kind", ["int64", "int32", "float"])
def test_range(kind: str) -> None:
    dtype = np.dtype({"float": "float32"}.get(kind, kind))
    inputs = ", ".join(f"{kind} {name}" for name in "abc")
    found = program(f"m ({inputs}) => ({kind} y) {{ y = Range (a, b, c) }}")
    for numbers_ in RANGES:
        given = [np.array(n, dtype) for n in numbers_]
        expected = np.arange(*numbers_, dtype=dtype)
        same(run(found, *given), [expected])
        known = ", ".join(f"{kind} {n} = {{{v}}}" for n, v in zip("abc", numbers_, strict=True))
        nodes = "{ y = Range (a, b, c) z = Neg (x) }"
        text = f"m (float[N] x) => ({kind} y, float[N] z) <{known}> {nodes}"
        same(run(text, np.zeros(1, np.float32))[:1], [expected])


def test_range_of_fractions() -> None:
    text = "m (float a, float b, float c) => (float y) { y = Range (a, b, c) }"
    given = [np.float32(n) for n in (0.5, 2.25, 0.25)]
    same(run(text, *given), [np.arange(7, dtype=np.float32) * np.float32(0.25) + np.float32(0.5)])


@pytest.mark.parametrize("k", [-3, -1, 0, 1, 4])
def test_eye_like(k: int) -> None:
    text = f"m (int32[A,B] x) => (float y) {{ y = EyeLike <dtype: int = 1, k: int = {k}> (x) }}"
    same(run(text, np.zeros((3, 4), np.int32)), [np.eye(3, 4, k, dtype=np.float32)])


@pytest.mark.parametrize(
    "node",
    [
        "RandomNormal <shape: ints = [2]> ()",
        "RandomUniformLike (x)",
        "Bernoulli (x)",
        "Multinomial (x)",
    ],
)
def test_random_numbers_are_refused(node: str) -> None:
    kind = "int32" if node.startswith("Multi") else "float"
    with pytest.raises(ModelError, match="E0307.*random numbers"):
        program(f"m (float[2,2] x) => ({kind} y) {{ y = {node} }}")


def test_a_range_needs_a_step() -> None:
    text = "m (int64 a) => (int64 y) <int64 zero = {0}> { y = Range (a, a, zero) }"
    with pytest.raises(ModelError, match="E0306.*step of 0"):
        program(text)
