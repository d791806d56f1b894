"""Slice and Pad against numpy: attributes, constants, inputs; bounds inside and outside."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.frontend.onnx.ops.texts import calls, numbers, program, run, same

FAR = [-(2**63) + 1, -(2**31), 2**31 - 1, 2**63 - 1]
bounds = st.integers(-9, 9) | st.sampled_from(FAR)
steps = st.integers(-4, 4).filter(bool)


def taken(size: int, start: int, end: int, step: int) -> list[int]:
    """Indices of a slice, as the standard's text says: wrap, clamp, then walk."""
    low, high = (0, size) if step > 0 else (-1, size - 1)
    start, end = (b + size if b < 0 else b for b in (start, end))
    start = min(max(start, 0), high)
    return list(range(start, min(max(end, low), high), step))


@settings(deadline=None, max_examples=60, derandomize=True)
@given(start=bounds, end=bounds, step=steps, size=st.integers(1, 6))
def test_constant_bounds(start: int, end: int, step: int, size: int) -> None:
    text = f"""m (float[T,2] x) => (float y)
      <int64[1] s = {{{start}}}, int64[1] e = {{{end}}}, int64[1] a = {{0}},
       int64[1] by = {{{step}}}>
      {{ y = Slice (x, s, e, a, by) }}"""
    x = numbers(size, 2)
    same(run(text, x), [x[taken(size, start, end, step)]])


@pytest.fixture(scope="module")
def slice_of_inputs() -> object:
    return program(
        "m (float[T,U] x, int64[1] s, int64[1] e, int64[1] a, int64[1] by) => (float y)"
        "{ y = Slice (x, s, e, a, by) }"
    )


@settings(deadline=None, max_examples=150, derandomize=True)
@given(start=bounds, end=bounds, step=steps, size=st.integers(1, 6), axis=st.integers(-2, 1))
def test_bounds_from_inputs(
    slice_of_inputs: object, start: int, end: int, step: int, size: int, axis: int
) -> None:
    x = numbers(size, size)
    given_ = [np.array([n]) for n in (start, end, axis, step)]
    indices = taken(size, start, end, step)
    same(run(slice_of_inputs, x, *given_), [np.take(x, indices, axis)])  # type: ignore[arg-type]


def test_attributes() -> None:
    text = """m (float[T,U] x) => (float y)
      { y = Slice <starts: ints = [1, -2], ends: ints = [9223372036854775807, -1]> (x) }"""
    x = numbers(4, 5)
    same(run(text, x, opset=9), [x[1:, -2:-1]])
    text = """m (float[T,U] x) => (float y)
      { y = Slice <axes: ints = [1], starts: ints = [0], ends: ints = [3]> (x) }"""
    same(run(text, x, opset=9), [x[:, :3]])


@pytest.mark.parametrize("start", [0, 1, 3, 20, -1, -3, -20])
@pytest.mark.parametrize("end", [1, 4, 30, -1, -4, -30, 2**63 - 1])
def test_fixed_bounds_of_a_size_that_varies(start: int, end: int) -> None:
    """The type of the slice must hold for every size, not for the one it was traced with."""
    text = f"""m (float[T] x) => (float[U] y, int64[1] n)
      <int64[1] s = {{{start}}}, int64[1] e = {{{end}}}> {{ y = Slice (x, s, e) n = Shape (y) }}"""
    found = program(text)
    for size in (1, 2, 3, 4, 5, 11, 25, 40):
        x = numbers(size)
        expected = x[start:end]
        same(run(found, x), [expected, np.array(expected.shape)])


def test_one_call_per_axis() -> None:
    text = """m (float[B,4,T,16] x) => (float y)
      <int64[2] s = {0, 8}, int64[2] e = {4, 9223372036854775807}, int64[2] a = {1, -1}>
      { y = Slice (x, s, e, a) }"""
    assert calls(text) == [
        "a = aten.slice.Tensor(x, -1, 8, 9223372036854775807)",
        "return (a,)",
    ]


PADS = [(0, 0, 0, 0), (1, 0, 2, 0), (0, 2, 0, 1), (2, 1, 1, 2), (-1, 1, 0, -2)]


def expected_pad(x: np.ndarray, pads: tuple[int, ...], mode: str, value: float) -> np.ndarray:
    """numpy's, with cuts for negative pads."""
    widths = [(max(b, 0), max(e, 0)) for b, e in zip(pads[:2], pads[2:], strict=True)]
    more = {"constant_values": value} if mode == "constant" else {}
    grown = np.pad(x, widths, mode=mode, **more)  # type: ignore[call-overload]
    cut = [
        slice(max(-b, 0), size - max(-e, 0))
        for b, e, size in zip(pads[:2], pads[2:], grown.shape, strict=True)
    ]
    return grown[tuple(cut)]


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
@pytest.mark.parametrize("pads", PADS)
def test_pad(pads: tuple[int, ...], mode: str) -> None:
    x = numbers(3, 4)
    expected = expected_pad(x, pads, mode, 1.5)
    listed = ", ".join(map(str, pads))
    node = f'Pad <mode: string = "{mode}"> (x, p, v)'
    known = f"<int64[4] p = {{{listed}}}, float v = {{1.5}}>"
    text = f"m (float[A,B] x) => (float y) {known} {{ y = {node} }}"
    same(run(text, x), [expected])
    text = f"m (float[A,B] x, int64[4] p, float v) => (float y) {{ y = {node} }}"
    same(run(text, x, np.array(pads), np.float32(1.5)), [expected])
    # Attributes, until opset 10.
    if mode != "wrap":
        node = f'Pad <mode: string = "{mode}", pads: ints = [{listed}], value: float = 1.5> (x)'
        same(run(f"m (float[A,B] x) => (float y) {{ y = {node} }}", x, opset=10), [expected])


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
def test_pads_of_some_axes(mode: str) -> None:
    text = f"""m (float[A,B] x, int64[2] p, int64[1] a) => (float y)
      {{ y = Pad <mode: string = "{mode}"> (x, p, , a) }}"""
    found, x = program(text), numbers(3, 4)
    for axis in (0, 1, -1, -2):
        pads = (1, 0, 2, 0) if axis in (0, -2) else (0, 1, 0, 2)
        arrays = np.array([1, 2]), np.array([axis])
        same(run(found, x, *arrays), [expected_pad(x, pads, mode, 0.0)])


def test_reflections_go_on() -> None:
    """Pads beyond the size reflect again; a single element is all there is to see."""
    text = (
        """m (float[T] x, int64[2] p) => (float y) { y = Pad <mode: string = "reflect"> (x, p) }"""
    )
    found = program(text)
    for size in (1, 2, 3):
        x = numbers(size)
        same(run(found, x, np.array([7, 8])), [np.pad(x, (7, 8), mode="reflect")])


@pytest.mark.parametrize("kind", ["uint16", "uint32", "uint64"])
def test_unsigned_integers_move_like_all_others(kind: str) -> None:
    text = f"""m ({kind}[T,T] x) => ({kind} y, {kind} z, int64 i, {kind} e)
      <int64[1] s = {{-1}}, int64[1] t = {{-9}}, int64[1] a = {{0}}, int64[1] by = {{-2}}>
      {{ y = Slice (x, s, t, a, by) z = Trilu (x) i = NonZero (x) e = EyeLike (x) }}"""
    x = np.array([[0, 1, 2], [3, 0, 4], [5, 6, np.iinfo(kind).max]], kind)
    expected = [x[::-2], np.triu(x), np.stack(np.nonzero(x)), np.eye(3, dtype=kind)]
    same(run(text, x), expected)


def test_pad_of_unsigned_integers() -> None:
    text = "m (uint64[T] x, int64[2] p, uint64 v) => (uint64 y) { y = Pad (x, p, v) }"
    x = np.array([1, 2**64 - 1], np.uint64)
    found = run(text, x, np.array([1, 0]), np.array(2**63 + 1, np.uint64))
    same(found, [np.array([2**63 + 1, 1, 2**64 - 1], np.uint64)])
