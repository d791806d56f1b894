"""Reads and writes at indices, against loops over every index."""

from __future__ import annotations

import numpy as np
import pytest

from tests.frontend.onnx.ops.texts import calls, numbers, program, run, same

TYPES = {"float": np.float32, "uint16": np.uint16, "uint64": np.uint64, "bool": np.bool_}


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("indices", [1, -1, [0, 2], [-1, 0, 1], [[0, -2], [2, 2]], []])
def test_gather(axis: int, indices: object, kind: str) -> None:
    x = (np.abs(numbers(3, 4, 3)) * 9).astype(TYPES[kind])
    index = np.array(indices, dtype=np.int64)
    shape = ",".join(map(str, index.shape))
    brackets = f"[{shape}]" if index.shape else ""
    node = f"y = Gather <axis: int = {axis}> (x, i)"
    expected = np.take(x, index, axis)
    text = f"m ({kind}[A,B,C] x, int64{brackets} i) => ({kind} y) {{ {node} }}"
    same(run(text, x, index), [expected])
    values = ", ".join(map(str, index.flatten()))
    known = f"<int64{brackets} i = {{{values}}}>"
    if index.size:
        same(run(f"m ({kind}[A,B,C] x) => ({kind} y) {known} {{ {node} }}", x), [expected])


def test_rows_of_a_weight_are_an_embedding() -> None:
    text = """m (int64[B,T] ids) => (float[B,T,2] y) <float[3,2] w = {0, 1, 2, 3, 4, 5}>
      { y = Gather (w, ids) }"""
    weight, call, *_ = calls(text)
    assert "weights[" in weight
    assert call == "b = aten.embedding.default(a, ids)"
    ids = np.array([[2, 0]])
    same(run(text, ids), [np.arange(6, dtype=np.float32).reshape(3, 2)[ids]])


def test_one_element_is_a_select() -> None:
    text = """m (float[B,T,4] x) => (float[B,4] y) <int64 i = {-1}>
      { y = Gather <axis: int = 1> (x, i) }"""
    assert calls(text) == ["a = aten.select.int(x, 1, -1)", "return (a,)"]


@pytest.mark.parametrize("axis", [0, 1, -2])
def test_gather_elements(axis: int) -> None:
    x, index = numbers(3, 3), np.array([[0, -1, 2], [-3, 1, 1]])
    index = index if axis in (0, -2) else index.T
    text = f"""m (float[A,B] x, int64[C,D] i) => (float y)
      {{ y = GatherElements <axis: int = {axis}> (x, i) }}"""
    expected = np.take_along_axis(x, index % 3, axis)
    same(run(text, x, index), [expected])


@pytest.mark.parametrize("batch", [0, 1, 2])
@pytest.mark.parametrize("width", [1, 2])
def test_gather_nd(batch: int, width: int) -> None:
    if batch + width > 3:
        pytest.skip("more indices than dimensions")
    rng = np.random.default_rng(0)
    x, lead = numbers(2, 3, 4), (2, 3)[:batch]
    index = rng.integers(-2, 2, (*lead, *((2, 3)[batch:] or (1,)), width))
    shape = ",".join(map(str, index.shape))
    text = f"""m (float[2,3,4] x, int64[{shape}] i) => (float y)
      {{ y = GatherND <batch_dims: int = {batch}> (x, i) }}"""
    expected = np.array(
        [x[(*place[:batch], *index[place])] for place in np.ndindex(*index.shape[:-1])]
    )
    rest = x.shape[batch + width :]
    same(run(text, x, index), [expected.reshape(*index.shape[:-1], *rest)])


UPDATES = {
    "none": lambda a, b: b,
    "add": lambda a, b: a + b,
    "mul": lambda a, b: a * b,
    "max": max,
    "min": min,
}


@pytest.mark.parametrize("reduction", UPDATES)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_scatter_elements(reduction: str, axis: int) -> None:
    rng = np.random.default_rng(1)
    x, updates = numbers(3, 4), numbers(2, 3, seed=1)
    along = x.shape[axis]
    # One index per line and update, so that no two write to one place.
    index = np.stack([rng.permutation(along)[:2] for _ in range(3)], 1) - along
    if axis != 0:
        index = np.stack([rng.permutation(along)[:3] for _ in range(2)]) - along
    text = f"""m (float[A,B] x, int64[C,D] i, float[C,D] u) => (float y)
      {{ y = ScatterElements <axis: int = {axis}, reduction: string = "{reduction}"> (x, i, u) }}"""
    expected = x.copy()
    for place in np.ndindex(*index.shape):
        target = list(place)
        target[axis] = index[place]
        expected[tuple(target)] = UPDATES[reduction](expected[tuple(target)], updates[place])
    same(run(text, x, index, updates), [expected])


@pytest.mark.parametrize("reduction", UPDATES)
@pytest.mark.parametrize("width", [1, 2, 3])
def test_scatter_nd(reduction: str, width: int) -> None:
    x = numbers(3, 4, 2)
    index = np.array([[0, -1, 1], [-1, 2, 0], [1, 0, -1]])[:, :width]
    updates = numbers(3, *x.shape[width:], seed=1)
    shape = ",".join(map(str, updates.shape))
    text = f"""m (float[A,B,C] x, int64[3,{width}] i, float[{shape}] u) => (float y)
      {{ y = ScatterND <reduction: string = "{reduction}"> (x, i, u) }}"""
    expected = x.copy()
    for row, update in zip(index, updates, strict=True):
        old = expected[tuple(row)]
        expected[tuple(row)] = np.vectorize(UPDATES[reduction])(old, update)
    same(run(text, x, index, updates), [expected])


def test_scattered_sums_count_twice() -> None:
    text = """m (float[N] x, int64[3,1] i, float[3] u) => (float y)
      { y = ScatterND <reduction: string = "add"> (x, i, u) }"""
    x, updates = numbers(2), np.array([1, 2, 4], np.float32)
    same(run(text, x, np.array([[0], [0], [1]]), updates), [x + np.array([3, 4], np.float32)])


@pytest.mark.parametrize("mode", ["linear", "circular"])
def test_tensor_scatter(mode: str) -> None:
    text = f"""m (float[B,2,S,3] cache, float[B,2,T,3] x, int64[B] at) => (float y)
      {{ y = TensorScatter <mode: string = "{mode}"> (cache, x, at) }}"""
    cache, x = numbers(2, 2, 5, 3), numbers(2, 2, 2, 3, seed=1)
    at = np.array([4, 1]) if mode == "circular" else np.array([3, 1])
    expected = cache.copy()
    for b, t in np.ndindex(2, 2):
        expected[b, :, (at[b] + t) % 5] = x[b, :, t]
    same(run(text, cache, x, at, opset=24), [expected])


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_one_hot(axis: int) -> None:
    text = f"""m (int64[N] i, int64 depth, float[2] values) => (float y)
      {{ y = OneHot <axis: int = {axis}> (i, depth, values) }}"""
    index = np.array([0, 2, -1, -3, 3, -4])
    expected = np.full((6, 3), -1, np.float32)
    for row, i in enumerate(index):
        if -3 <= i < 3:
            expected[row, i] = 5
    expected = expected.T if axis == 0 else expected
    same(run(text, index, np.int64(3), np.array([-1, 5], np.float32)), [expected])


def test_non_zero_and_compress() -> None:
    x = np.array([[0, 1, 0], [2, 0, 3]], np.float32)
    text = "m (float[A,B] x) => (int64 y) { y = NonZero (x) }"
    same(run(text, x), [np.stack(np.nonzero(x))])
    condition = np.array([False, True])
    text = "m (float[A,B] x, bool[N] c) => (float y) { y = Compress <axis: int = 1> (x, c) }"
    same(run(text, x, condition), [x[:, 1:2]])
    text = "m (float[A,B] x, bool[N] c) => (float y) { y = Compress (x, c) }"
    same(run(text, x, np.array([False, True, False, True])), [x.flatten()[[1, 3]]])


def test_batches_of_all_sizes() -> None:
    text = """m (float[B,V] x, int64[B,1] i) => (float[B,1] y)
      { y = GatherElements <axis: int = 1> (x, i) }"""
    found = program(text)
    for b in (1, 2, 5):
        x = numbers(b, 3)
        index = np.full((b, 1), -1)
        same(run(found, x, index), [x[:, -1:]])
