"""Products of matrices against numpy, and the calls that matchers look for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.frontend.onnx.ops.texts import calls, numbers, program, run, same

CORNERS = list(itertools.product((0, 1), (0, 1), (1.0, 0.5), (1.0, 2.0)))


@pytest.mark.parametrize(("turn_a", "turn_b", "alpha", "beta"), CORNERS)
@pytest.mark.parametrize("c", [None, (), (5,), (1, 5), (4, 1), (4, 5)])
def test_gemm(
    turn_a: int, turn_b: int, alpha: float, beta: float, c: tuple[int, ...] | None
) -> None:
    a, b = numbers(4, 3), numbers(3, 5, seed=1)
    bias = None if c is None else numbers(*c, seed=2)
    shape = "" if not c else f"[{','.join(map(str, c))}]"
    text = f"""m (float[A,B] a, float[C,D] b{"" if c is None else f", float{shape} c"}) => (float y)
      {{ y = Gemm <alpha: float = {alpha}, beta: float = {beta}, transA: int = {turn_a},
         transB: int = {turn_b}> (a, b{"" if c is None else ", c"}) }}"""
    given = [a.T if turn_a else a, b.T if turn_b else b]
    expected = alpha * (a @ b) + (0 if bias is None else beta * bias)
    found = run(text, *given, *([] if bias is None else [bias]))
    np.testing.assert_allclose(found[0], expected, rtol=1e-5, atol=1e-6)


def test_gemm_of_integers() -> None:
    a, b = np.array([[1, 2]]), np.array([[3], [4]])
    text = "m (int64[A,B] a, int64[B,C] b) => (int64 y) { y = Gemm <alpha: float = 2.0> (a, b) }"
    same(run(text, a, b), [np.array([[22]])])


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("Gemm <transB: int = 1> (x, w, c)", "aten.linear.default(x, a, b)"),
        ("Gemm <transB: int = 1> (x, w)", "aten.linear.default(x, a)"),
        ("Gemm (x, w, c)", "aten.addmm.default(b, x, a)"),
        ("MatMul (x, w)", "aten.matmul.default(x, a)"),
    ],
)
def test_products_with_a_weight(node: str, expected: str) -> None:
    weight = f"float[2,2] w = {{{', '.join('1' * 4)}}}, float[2] c = {{1, 2}}"
    text = f"m (float[N,2] x) => (float[N,2] y) <{weight}> {{ y = {node} }}"
    assert [line for line in calls(text) if "aten" in line][-1].split(" = ")[1] == expected


@pytest.mark.parametrize(
    ("a", "b"), [((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((2, 1, 4, 3), (5, 3, 2))]
)
def test_matmul_broadcasts(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    left, right = numbers(*a), numbers(*b, seed=1)
    shapes = [",".join(map(str, shape)) for shape in (a, b)]
    text = f"m (float[{shapes[0]}] a, float[{shapes[1]}] b) => (float y) {{ y = MatMul (a, b) }}"
    found = run(text, left, right)
    np.testing.assert_allclose(found[0], left @ right, rtol=1e-5, atol=1e-6)
    assert found[0].shape == (left @ right).shape


@pytest.mark.parametrize("name", ["int32", "int64", "uint32", "uint64"])
def test_matmul_of_integers(name: str) -> None:
    big = np.iinfo(name).max
    a, b = np.array([[1, big], [2, 3]], name), np.array([[5, 1], [2, big]], name)
    text = f"m ({name}[A,B] a, {name}[B,C] b) => ({name} y) {{ y = MatMul (a, b) }}"
    same(run(text, a, b), [a @ b])


@pytest.mark.parametrize("rows", [1, 4])
def test_matmul_integer(rows: int) -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (4, 3)).astype(np.uint8)
    b = rng.integers(-128, 128, (3, 2)).astype(np.int8)
    zero_a = rng.integers(0, 256, rows).astype(np.uint8)
    zero_b = rng.integers(-128, 128, 2).astype(np.int8)
    text = f"""m (uint8[M,K] a, int8[K,N] b, uint8[{rows}] za, int8[2] zb) => (int32 y)
      {{ y = MatMulInteger (a, b, za, zb) }}"""
    left = a.astype(np.int32) - zero_a.astype(np.int32)[:, None]
    right = b.astype(np.int32) - zero_b.astype(np.int32)
    same(run(text, a, b, zero_a, zero_b), [left @ right])


def test_einsum_and_determinant() -> None:
    a, b = numbers(2, 3, 4), numbers(2, 4, 5, seed=1)
    text = """m (float[B,I,J] a, float[B,J,K] b) => (float y)
      { y = Einsum <equation: string = "b i j, b j k -> b k i"> (a, b) }"""
    np.testing.assert_allclose(run(text, a, b)[0], (a @ b).swapaxes(1, 2), rtol=1e-5, atol=1e-6)
    x = numbers(3, 2, 2)
    found = run("m (float[B,2,2] x) => (float[B] y) { y = Det (x) }", x)
    expected = x[:, 0, 0] * x[:, 1, 1] - x[:, 0, 1] * x[:, 1, 0]
    np.testing.assert_allclose(found[0], expected, rtol=1e-5, atol=1e-6)


def test_batches_of_all_sizes() -> None:
    found = program("m (float[B,H,T,D] q, float[B,H,D,S] k) => (float y) { y = MatMul (q, k) }")
    for b, t, s in [(1, 1, 1), (2, 1, 5), (1, 4, 4)]:
        q, k = numbers(b, 2, t, 3), numbers(b, 2, 3, s, seed=1)
        np.testing.assert_allclose(run(found, q, k)[0], q @ k, rtol=1e-5, atol=1e-6)
