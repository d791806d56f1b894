"""Elementwise operators: every pair of interesting integers of every type, against Python's."""

from __future__ import annotations

import operator
from collections.abc import Callable

import numpy as np
import pytest

from tests.frontend.onnx.ops.texts import agree, calls, numbers, run, same

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
UNSIGNED = [name for name in INTEGERS if name.startswith("u")]


def pairs(name: str) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of small, middle and extreme numbers."""
    limits = np.iinfo(name)
    middle = limits.max // 2
    values = [0, 1, 2, 3, 7, middle - 1, middle, middle + 1, middle + 2, limits.max - 1, limits.max]
    if limits.min:
        values += [-1, -2, -3, -7, limits.min + 1]
    a, b = np.meshgrid(np.array(values, dtype=name), np.array(values, dtype=name))
    return a.flatten(), b.flatten()


def wrapped(values: list[int], name: str) -> np.ndarray:
    """Whole numbers as elements of a type, modulo its range."""
    bits = np.iinfo(name).bits
    return np.array([v % 2**bits for v in values], dtype=f"uint{bits}").view(name)


def truncated(a: int, b: int) -> int:
    """The quotient rounded to zero."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def binary(op: str, name: str, result: str | None = None, attributes: str = "") -> str:
    """A model of one operator on two vectors."""
    result = result or name
    return f"m ({name}[N] a, {name}[N] b) => ({result}[N] y) {{ y = {op} {attributes} (a, b) }}"


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize(
    ("op", "function"),
    [
        ("Add", operator.add),
        ("Sub", operator.sub),
        ("Mul", operator.mul),
        ("Max", max),
        ("Min", min),
        ("BitwiseAnd", operator.and_),
        ("BitwiseOr", operator.or_),
        ("BitwiseXor", operator.xor),
    ],
)
def test_integers(op: str, function: Callable[[int, int], int], name: str) -> None:
    a, b = pairs(name)
    expected = [function(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    same(run(binary(op, name), a, b), [wrapped(expected, name)])


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize(
    ("op", "attributes", "function"),
    [
        ("Div", "", truncated),
        ("Mod", "", operator.mod),
        ("Mod", "<fmod: int = 1>", lambda a, b: a - b * truncated(a, b)),
    ],
)
def test_division(op: str, attributes: str, function: Callable[[int, int], int], name: str) -> None:
    a, b = (part[pairs(name)[1] != 0] for part in pairs(name))
    expected = [function(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    text = binary(op, name, attributes=attributes)
    same(run(text, a, b), [np.array(expected, dtype=name)])


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize(
    ("op", "function"),
    [
        ("Equal", operator.eq),
        ("Less", operator.lt),
        ("LessOrEqual", operator.le),
        ("Greater", operator.gt),
        ("GreaterOrEqual", operator.ge),
    ],
)
def test_comparisons(op: str, function: Callable[[int, int], bool], name: str) -> None:
    a, b = pairs(name)
    expected = [function(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    same(run(binary(op, name, "bool"), a, b), [np.array(expected)])


@pytest.mark.parametrize("name", UNSIGNED)
@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
def test_shifts(direction: str, name: str) -> None:
    bits = np.iinfo(name).bits
    values = np.unique(pairs(name)[0])
    x, count = (part.flatten() for part in np.meshgrid(values, np.arange(bits, dtype=name)))
    shift = operator.lshift if direction == "LEFT" else operator.rshift
    expected = [shift(a, b) for a, b in zip(x.tolist(), count.tolist(), strict=True)]
    text = binary("BitShift", name, attributes=f'<direction: string = "{direction}">')
    same(run(text, x, count), [wrapped(expected, name)])


@pytest.mark.parametrize("name", UNSIGNED)
def test_one_unsigned_operand(name: str) -> None:
    x = np.unique(pairs(name)[0])
    limits = np.iinfo(name)
    text = f"m ({name}[N] x) => ({name}[N] a, {name}[N] s) {{ a = Abs (x) s = Sign (x) }}"
    same(run(text, x), [x, (x > 0).astype(name)])
    low, high = 2, limits.max - 1
    text = (
        f"m ({name}[N] x) => ({name}[N] y) <{name} low = {{{low}}}, {name} high = {{{high}}}> "
        "{ y = Clip (x, low, high) }"
    )
    same(run(text, x), [np.clip(x, np.array(low, name), np.array(high, name))])


@pytest.mark.parametrize("base", ["int32", "int64", "float"])
@pytest.mark.parametrize("exponent", ["int32", "uint64", "float"])
def test_power_has_the_type_of_the_base(base: str, exponent: str) -> None:
    kinds = {"float": "float32"}
    a = np.array([1, 2, 3, 5], dtype=kinds.get(base, base))
    b = np.array([0, 1, 2, 3], dtype=kinds.get(exponent, exponent))
    text = f"m ({base}[N] a, {exponent}[N] b) => ({base}[N] y) {{ y = Pow (a, b) }}"
    same(run(text, a, b), [np.array([1, 2, 9, 125], dtype=a.dtype)])


@pytest.mark.parametrize("bounds", ["<min: float = -0.5, max: float = 0.25>", "<max: float = 0.1>"])
def test_clip_with_attributes(bounds: str) -> None:
    agree(f"m (float[N] x) => (float[N] y) {{ y = Clip {bounds} (x) }}", numbers(50), opset=10)


def test_clip_with_inputs() -> None:
    text = "m (float[N] x, float low, float high) => (float[N] y) { y = Clip (x, low, high) }"
    agree(text, numbers(50), np.float32(-0.5), np.float32(0.25), opset=13)
    # The larger bound wins nothing: with min > max everything is max.
    same(run(text, numbers(5), np.float32(1), np.float32(-1)), [np.full(5, -1, np.float32)])
    text = "m (float[N] x, float high) => (float[N] y) { y = Clip (x, , high) }"
    agree(text, numbers(50), np.float32(0.25), opset=13)


def test_round_to_even() -> None:
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 2.4999998], np.float32)
    expected = np.array([0.0, 2.0, 2.0, -0.0, -2.0, 2.0], np.float32)
    same(run("m (float[N] x) => (float[N] y) { y = Round (x) }", x), [expected])


@pytest.mark.parametrize("op", ["Sum", "Max", "Min", "Mean"])
def test_any_number_of_operands(op: str) -> None:
    a, b, c = numbers(3, 1), numbers(4, seed=1), numbers(3, 4, seed=2)
    inputs = "(float[A,1] a, float[B] b, float[A,B] c)"
    stacked = np.stack(np.broadcast_arrays(a, b, c))
    expected = {
        "Sum": (a + b) + c,
        "Mean": ((a + b) + c) / np.float32(3),
        "Max": stacked.max(0),
        "Min": stacked.min(0),
    }
    same(run(f"m {inputs} => (float[A,B] y) {{ y = {op} (a, b, c) }}", a, b, c), [expected[op]])
    same(run(f"m (float[N] x) => (float[N] y) {{ y = {op} (x) }}", b), [b])


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("Mul (x, two)", "aten.mul.Tensor(x, 2.0)"),
        ("Mul (two, x)", "aten.mul.Tensor(x, 2.0)"),
        ("Add (two, x)", "aten.add.Tensor(x, 2.0)"),
        ("Sub (x, two)", "aten.sub.Tensor(x, 2.0)"),
        ("Sub (two, x)", "aten.rsub.Scalar(x, 2.0)"),
        ("Div (x, two)", "aten.div.Tensor(x, 2.0)"),
        ("Div (one, x)", "aten.reciprocal.default(x)"),
        ("Pow (x, two)", "aten.pow.Tensor_Scalar(x, 2.0)"),
        ("Max (two, x)", "aten.clamp_min.default(x, 2.0)"),
        ("Min (x, two)", "aten.clamp_max.default(x, 2.0)"),
        ("Less (two, x)", "aten.gt.Scalar(x, 2.0)"),
        ("GreaterOrEqual (x, two)", "aten.ge.Scalar(x, 2.0)"),
        ("Where (c, x, two)", "aten.where.ScalarOther(c, x, 2.0)"),
        ("Where (c, two, x)", "aten.where.ScalarSelf(c, 2.0, x)"),
        ("Where (c, one, two)", "aten.where.Scalar(c, 1.0, 2.0)"),
        ("And (c, yes)", None),
        ("Or (c, yes)", "aten.logical_or.default(c, a)"),
    ],
)
def test_numbers_stay_literals(node: str, expected: str | None) -> None:
    kind = "bool" if node.split()[0] in ("Less", "GreaterOrEqual", "And", "Or") else "float"
    text = (
        f"m (float[N] x, bool[N] c) => ({kind}[N] y) "
        f"<float one = {{1.0}}, float two = {{2.0}}, bool yes = {{1}}> {{ y = {node} }}"
    )
    found = [line.split(" = ")[1] for line in calls(text) if "aten" in line]
    assert found == ([expected] if expected else [])


def test_a_number_that_widens_the_result_stays_a_tensor() -> None:
    text = "m (float[N] x) => (float[1,N] y) <float[1,1] two = {2.0}> { y = Mul (x, two) }"
    x = numbers(4)
    same(run(text, x), [2 * x[None]])


def test_sizes_are_numbers_beside_tensors() -> None:
    text = (
        "m (float[B,T] x) => (int64[T] y) <int64 zero = {0}, int64 one = {1}> "
        "{ s = Shape <start: int = 1> (x) t = Squeeze (s) r = Range (zero, t, one) y = Add (r, s) }"
    )
    assert calls(text) == [
        "a = aten.sym_size.int(x, 1)",
        "b = aten.arange.default(a, dtype=torch.int64)",
        "c = aten.add.Tensor(b, a)",
        "return (c,)",
    ]
    same(run(text, numbers(2, 3)), [np.array([3, 4, 5])])
