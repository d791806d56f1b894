"""Operators on shapes: the forms of every opset, sizes that vary, and the graphs they become."""

from __future__ import annotations

import math

import numpy as np
import pytest

from effc.diagnostics import ModelError
from tests.frontend.onnx.ops.texts import agree, calls, numbers, program, run, same

SIZES = [(1, 1), (1, 5), (3, 1), (4, 7)]


def test_heads_are_one_reshape() -> None:
    """What exporters write for x.view(B, T, H, D): sizes gathered from a shape and joined."""
    text = """m (float[B,T,64] x) => (float[B,T,4,16] y)
      <int64 zero = {0}, int64 one = {1}, int64[1] at = {0}, int64[1] h = {4}, int64[1] d = {16}>
      { s = Shape (x) b = Gather (s, zero) t = Gather (s, one)
        b1 = Unsqueeze (b, at) t1 = Unsqueeze (t, at)
        shape = Concat <axis: int = 0> (b1, t1, h, d) y = Reshape (x, shape) }"""
    assert calls(text) == [
        "a = aten.sym_size.int(x, 0)",
        "b = aten.sym_size.int(x, 1)",
        "c = aten.reshape.default(x, [a, b, 4, 16])",
        "return (c,)",
    ]
    found = program(text)
    for b, t in SIZES:
        x = numbers(b, t, 64)
        same(run(found, x), [x.reshape(b, t, 4, 16)])


def test_merged_heads_are_one_reshape() -> None:
    """x.transpose(1, 2).reshape(B, T, H * D), with the product computed in the graph."""
    text = """m (float[B,4,T,16] x) => (float[B,T,64] y)
      <int64 zero = {0}, int64 one = {1}, int64 two = {2}, int64 three = {3}, int64[1] at = {0}>
      { z = Transpose <perm: ints = [0, 2, 1, 3]> (x) s = Shape (z)
        b = Gather (s, zero) t = Gather (s, one) h = Gather (s, two) d = Gather (s, three)
        w = Mul (h, d) b1 = Unsqueeze (b, at) t1 = Unsqueeze (t, at) w1 = Unsqueeze (w, at)
        shape = Concat <axis: int = 0> (b1, t1, w1) y = Reshape (z, shape) }"""
    assert calls(text) == [
        "a = aten.permute.default(x, [0, 2, 1, 3])",
        "b = aten.sym_size.int(a, 0)",
        "c = aten.sym_size.int(a, 1)",
        "d = aten.reshape.default(a, [b, c, 64])",
        "return (d,)",
    ]


def test_repeated_heads_are_one_expand() -> None:
    """Grouped queries: [B, H_kv, 1, S, D] expanded, with -1 and 1 for what stays."""
    text = """m (float[B,2,S,8] x) => (float[B,2,3,S,8] y)
      <int64[1] two = {2}, int64[5] by = {1, 1, 3, 1, 1}>
      { u = Unsqueeze (x, two) y = Expand (u, by) }"""
    assert calls(text) == [
        "a = aten.unsqueeze.default(x, 2)",
        "b = aten.expand.default(a, [-1, -1, 3, -1, -1])",
        "return (b,)",
    ]
    # The same with the tensor's own sizes in the shape.
    text = """m (float[B,2,S,8] x) => (float[B,2,3,S,8] y)
      <int64[1] two = {2}, int64 zero = {0}, int64 dim = {2}, int64[1] at = {0}, int64[1] h = {2},
       int64[1] n = {3}, int64[1] d = {8}>
      { u = Unsqueeze (x, two) s = Shape (x) b = Gather (s, zero) t = Gather (s, dim)
        b1 = Unsqueeze (b, at) t1 = Unsqueeze (t, at)
        shape = Concat <axis: int = 0> (b1, h, n, t1, d) y = Expand (u, shape) }"""
    assert calls(text) == [
        "a = aten.unsqueeze.default(x, 2)",
        "b = aten.expand.default(a, [-1, -1, 3, -1, -1])",
        "return (b,)",
    ]


def test_no_call_for_what_changes_nothing() -> None:
    text = """m (float[B,3] x) => (float[B,3] y) <int64[2] keep = {0, 3}, int64[2] ones = {1, 1}>
      { a = Reshape (x, keep) b = Expand (a, ones) c = Transpose <perm: ints = [0, 1]> (b)
        d = Concat <axis: int = 0> (c) e = Flatten (d) y = Identity (e) }"""
    assert calls(text) == ["return (x,)"]


@pytest.mark.parametrize(
    "shape", [(0, -1), (-1, 4), (0, 3, 2, 2), (2, 0, 4), (24,), (1, -1, 1), (0, 0, 0)]
)
def test_reshape(shape: tuple[int, ...]) -> None:
    x = numbers(2, 3, 4)
    wanted = [x.shape[i] if size == 0 else size for i, size in enumerate(shape)]
    listed = ", ".join(map(str, shape))
    known = f"<int64[{len(shape)}] s = {{{listed}}}> {{ y = Reshape (x, s) }}"
    same(run(f"m (float[2,3,4] x) => (float y) {known}", x), [x.reshape(wanted)])
    given = f"m (float[2,3,4] x, int64[{len(shape)}] s) => (float y) {{ y = Reshape (x, s) }}"
    same(run(given, x, np.array(shape)), [x.reshape(wanted)])


def test_reshape_may_take_zeros_as_sizes() -> None:
    text = """m (float[0,3] x, int64[2] s) => (float[A,B] y)
      { y = Reshape <allowzero: int = 1> (x, s) }"""
    x = np.zeros((0, 3), np.float32)
    same(run(text, x, np.array([5, 0])), [x.reshape(5, 0)])


@pytest.mark.parametrize("axis", [-3, -1, 0, 1, 2, 3])
def test_flatten(axis: int) -> None:
    text = f"m (float[B,3,T] x) => (float[M,N] y) {{ y = Flatten <axis: int = {axis}> (x) }}"
    found = program(text)
    for b, t in [*SIZES, (2, 0)]:
        x = numbers(b, 3, t)
        rows, columns = math.prod(x.shape[:axis]), math.prod(x.shape[axis:] if axis < 3 else ())
        same(run(found, x), [x.reshape(rows, columns)])


@pytest.mark.parametrize("opset", [11, 13, 21])
def test_squeeze_and_unsqueeze(opset: int) -> None:
    x = numbers(2, 1, 3, 1)
    for axes in ([1], [3], [-1], [1, 3], [-1, 1]):
        listed = ", ".join(map(str, axes))
        if opset < 13:
            where = f"<axes: ints = [{listed}]>"
            node = f"y = Squeeze {where} (x) z = Unsqueeze {where} (y)"
            agree(f"m (float[2,1,3,1] x) => (float y, float z) {{ {node} }}", x, opset=opset)
            continue
        node = "y = Squeeze (x, a) z = Unsqueeze (y, a)"
        known = f"<int64[{len(axes)}] a = {{{listed}}}>"
        agree(f"m (float[2,1,3,1] x) => (float y, float z) {known} {{ {node} }}", x, opset=opset)
        text = f"m (float[2,1,3,1] x, int64[{len(axes)}] a) => (float y) {{ y = Squeeze (x, a) }}"
        agree(text, x, np.array(axes), opset=opset)


def test_unsqueeze_sorts_axes_that_are_inputs() -> None:
    text = "m (float[2,3] x, int64[3] a) => (float y) { y = Unsqueeze (x, a) }"
    found = program(text)
    for axes in ([4, 0, 2], [-1, 0, 1], [3, -5, -4], [0, 1, 2]):
        x = numbers(2, 3)
        same(run(found, x, np.array(axes)), [np.expand_dims(x, tuple(axes))])


def test_squeeze_of_everything() -> None:
    text = "m (float[A,1,B] x) => (float y) { y = Squeeze (x) }"
    for a, b in SIZES:
        x = numbers(a, 1, b)
        same(run(text, x), [x.squeeze()])


@pytest.mark.parametrize("opset", [11, 13, 18])
@pytest.mark.parametrize("sizes", [[2, 4], [1, 5], [3, 3], [6, 0], None])
def test_split(sizes: list[int] | None, opset: int) -> None:
    x = numbers(2, 6)
    attributes, inputs, constant = ["axis: int = 1"], "(x)", ""
    if sizes and opset < 13:
        attributes.append(f"split: ints = [{sizes[0]}, {sizes[1]}]")
    elif sizes:
        inputs, constant = "(x, s)", f"<int64[2] s = {{{sizes[0]}, {sizes[1]}}}>"
    elif opset == 18:
        attributes.append("num_outputs: int = 2")
    node = f"a, b = Split <{', '.join(attributes)}> {inputs}"
    text = f"m (float[2,6] x) => (float a, float b) {constant} {{ {node} }}"
    first = 3 if sizes is None else sizes[0]
    same(run(text, x, opset=opset), [x[:, :first], x[:, first:]])
    found = calls(text, opset)
    assert found[0] == f"a = aten.split_with_sizes.default(x, [{first}, {6 - first}], 1)"
    assert found[1:] == ["b = a[0]", "c = a[1]", "return (b, c,)"]


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 8, 9])
def test_split_of_a_size_that_varies(length: int) -> None:
    """All parts have the size of the first, which is rounded up; the last has the rest."""
    text = "m (float[T,2] x) => (float a, float b) { a, b = Split <num_outputs: int = 2> (x) }"
    x = numbers(length, 2)
    first = -(-length // 2)
    same(run(text, x), [x[:first], x[first:]])


def test_expand_in_both_directions() -> None:
    x = numbers(3, 1)
    for shape in ([3, 4], [1, 4], [1], [2, 1, 5], [2, 3, 1], [1, 1]):
        listed = ", ".join(map(str, shape))
        expected = x * np.ones(shape, np.float32)
        known = f"<int64[{len(shape)}] s = {{{listed}}}>"
        text = f"m (float[3,1] x) => (float y) {known} {{ y = Expand (x, s) }}"
        same(run(text, x), [expected])
        text = f"m (float[3,1] x, int64[{len(shape)}] s) => (float y) {{ y = Expand (x, s) }}"
        same(run(text, x, np.array(shape)), [expected])


def test_expand_of_a_size_that_may_be_one() -> None:
    """Two sizes of which either may be 1: only at run time the larger is known."""
    text = (
        "m (float[A,2] x, float[B] z) => (float[C,2] y, int64[2] s) <int64[1] two = {2}> {"
        " b = Shape (z) t = Concat <axis: int = 0> (b, two) y = Expand (x, t) s = Shape (y) }"
    )
    found = program(text)
    for a, b in [(1, 1), (1, 4), (4, 1), (3, 3)]:
        x = numbers(a, 2)
        same(run(found, x, numbers(b)), [x * np.ones((b, 1), np.float32), np.array([max(a, b), 2])])


def test_tile() -> None:
    x = numbers(2, 3)
    text = "m (float[A,B] x, int64[2] n) => (float y) { y = Tile (x, n) }"
    same(run(text, x, np.array([2, 3])), [np.tile(x, (2, 3))])


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_and_back(mode: str) -> None:
    text = f"""m (float[N,12,H,3] x) => (float y, float z)
      {{ y = DepthToSpace <blocksize: int = 2, mode: string = "{mode}"> (x)
         z = SpaceToDepth <blocksize: int = 2, mode: string = "{mode}"> (y) }}"""
    x = numbers(2, 12, 5, 3)
    y, z = run(text, x, opset=28)
    same([z], [x])
    # Channel c of block (i, j): in DCR the block comes first, in CRD the channel.
    for c, i, j in np.ndindex(3, 2, 2):
        source = (i * 2 + j) * 3 + c if mode == "DCR" else c * 4 + i * 2 + j
        np.testing.assert_array_equal(y[:, c, i::2, j::2], x[:, source])


@pytest.mark.parametrize("upper", [0, 1])
def test_trilu(upper: int) -> None:
    node = f"y = Trilu <upper: int = {upper}> (x, k)"
    text = f"m (float[B,T,T] x, int64 k) => (float[B,T,T] y) {{ {node} }}"
    found, x = program(text), numbers(2, 4, 4)
    for k in range(-5, 6):
        same(run(found, x, np.int64(k)), [(np.triu if upper else np.tril)(x, k)])


@pytest.mark.parametrize("axes", [(0, 1), (1, 0)])
def test_reverse_sequence(axes: tuple[int, int]) -> None:
    time, batch = axes
    text = f"""m (float[A,B,2] x, int64[{"AB"[batch]}] n) => (float[A,B,2] y)
      {{ y = ReverseSequence <time_axis: int = {time}, batch_axis: int = {batch}> (x, n) }}"""
    x, lengths = numbers(4, 4, 2), np.array([1, 4, 0, 3])
    expected = x.copy() if time == 0 else x.swapaxes(0, 1).copy()
    for row, n in enumerate(lengths):
        expected[:n, row] = expected[:n, row][::-1]
    same(run(text, x, lengths), [expected if time == 0 else expected.swapaxes(0, 1)])


@pytest.mark.parametrize(
    "node",
    [
        "y = Flatten <axis: int = 4> (x)",
        "y = Split <axis: int = 3, num_outputs: int = 2> (x)",
        "y = Gather <axis: int = 2> (x, i)",
        "y = Expand (x, s)",
    ],
)
def test_what_does_not_fit_is_refused(node: str) -> None:
    text = f"m (float[2,3] x) => (float y) <int64 i = {{0}}, int64[2] s = {{2, 5}}> {{ {node} }}"
    with pytest.raises(ModelError, match="E0306"):
        program(text)
