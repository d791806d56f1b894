"""Normalizations, against their definitions and ONNX Runtime, and the sites they become."""

from __future__ import annotations

import numpy as np
import pytest

from effc.diagnostics import ModelError
from tests.frontend.onnx.ops.oracles import agree
from tests.frontend.onnx.ops.texts import calls, numbers, run, same


def normal(x: np.ndarray, axes: tuple[int, ...], eps: float) -> np.ndarray:
    """x without mean and deviation, in double precision."""
    x = x.astype(np.float64)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def close(found: np.ndarray, expected: np.ndarray) -> None:
    """Equal up to float32 rounding."""
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axis", [1, 2, -1])
@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm_and_its_statistics(axis: int, bias: bool) -> None:
    sizes = (3, 4, 5)[axis % 3 :]
    shape = ",".join(map(str, sizes))
    given = f"float[{shape}] b" if bias else "float b"
    text = f"m (float[N,4,5] x, float[{shape}] s, {given}) => (float[N,4,5] y, float[A,B,C] m, "
    text += "float[A,B,C] d) { y, m, d = LayerNormalization "
    text += f"<axis = {axis}, epsilon = 0.01> (x, s{', b' if bias else ''}) }}"
    x, scale, offset = numbers(3, 4, 5), numbers(*sizes), numbers(*sizes if bias else ())
    y, mean, deviation = run(text, x, scale, offset)
    axes = tuple(range(axis % 3, 3))
    close(y, normal(x, axes, 0.01) * scale + (offset if bias else 0))
    close(mean, x.mean(axes, keepdims=True))
    close(deviation, 1 / np.sqrt(x.var(axes, keepdims=True) + 0.01))


def test_a_scale_of_another_shape_broadcasts() -> None:
    text = "m (float[N,4,5] x, float[1] s) => (float[N,4,5] y)"
    x, scale = numbers(2, 4, 5), numbers(1)
    (y,) = run(text + " { y = LayerNormalization (x, s) }", x, scale)
    close(y, normal(x, (2,), 1e-5) * scale)


@pytest.mark.parametrize("opset", [18, 21])
def test_group_norm_has_one_factor_per_group_and_later_per_channel(opset: int) -> None:
    count = 2 if opset == 18 else 4
    text = f"m (float[N,4,H] x, float[{count}] s, float[{count}] b) => (float[N,4,H] y)"
    text += " { y = GroupNormalization <num_groups = 2> (x, s, b) }"
    for shape in ((1, 4, 6), (3, 4, 5)):
        x, scale, bias = numbers(*shape), numbers(count), numbers(count, seed=1)
        grouped = normal(x.reshape(shape[0], 2, 2, shape[2]), (2, 3), 1e-5).reshape(shape)
        each = [np.repeat(part, 4 // count)[:, None] for part in (scale, bias)]
        close(run(text, x, scale, bias, opset=opset)[0], grouped * each[0] + each[1])


@pytest.mark.parametrize("axis", [-1, 1, 0])
def test_rms_norm(axis: int) -> None:
    sizes = (2, 3, 8)[axis % 3 :]
    first = "N,3,8" if axis else "2,3,8"
    text = f"m (float[{first}] x, float[{','.join(map(str, sizes))}] s) => (float[{first}] y) {{"
    text += f" y = RMSNormalization <axis = {axis}, epsilon = 0.01> (x, s) }}"
    x, scale = numbers(2, 3, 8), numbers(*sizes)
    axes = tuple(range(axis % 3, 3))
    mean = np.square(x.astype(np.float64)).mean(axes, keepdims=True)
    close(run(text, x, scale, opset=23)[0], x / np.sqrt(mean + 0.01) * scale)


def test_norms_become_the_operators_of_sites() -> None:
    head = "m (float[N,8] x, float[8] s, float[8] b) => (float[N,8] y) { y = "
    assert "effc.rms_norm" in calls(head + "RMSNormalization (x, s) }", opset=23)[0]
    assert "aten.layer_norm" in calls(head + "LayerNormalization (x, s, b) }")[0]


@pytest.mark.parametrize("opset", [7, 9, 14, 15])
def test_batch_norm(opset: int) -> None:
    vectors = ", ".join(f"float[3] {name}" for name in "sbmv")
    text = f"m (float[N,3,H] x, {vectors}) => (float[N,3,H] y)"
    text += " { y = BatchNormalization <epsilon = 0.02> (x, s, b, m, v) }"
    rest = [numbers(3, seed=i) for i in range(3)] + [np.abs(numbers(3, seed=9))]
    agree(text, *[(numbers(n, 3, h), *rest) for n, h in ((1, 4), (2, 1))], opset=opset)


def test_batch_norm_of_a_batch_moves_its_moments() -> None:
    vectors = ", ".join(f"float[3] {name}" for name in "sbmv")
    text = f"m (float[N,3,H] x, {vectors}) => (float[N,3,H] y, float[3] p, float[3] q) {{ y, p, q"
    text += " = BatchNormalization <training_mode = 1, momentum = 0.8> (x, s, b, m, v) }"
    x, rest = numbers(4, 3, 5), [np.abs(numbers(3, seed=i)) for i in range(4)]
    y, mean, variance = run(text, x, *rest, opset=15)
    scale, bias = rest[0][:, None], rest[1][:, None]
    close(y, normal(x, (0, 2), 1e-5) * scale + bias)
    close(mean, 0.8 * rest[2] + 0.2 * x.mean((0, 2)))
    close(variance, 0.8 * rest[3] + 0.2 * x.var((0, 2)))


def test_old_training_outputs_are_refused() -> None:
    vectors = ", ".join(f"float[3] {name}" for name in "sbmv")
    text = f"m (float[N,3] x, {vectors}) => (float[N,3] y, float[3] p) "
    text += "{ y, p = BatchNormalization (x, s, b, m, v) }"
    with pytest.raises(ModelError, match="outputs of training are wanted"):
        run(text, numbers(2, 3), *[numbers(3)] * 4, opset=9)


def test_instances() -> None:
    text = "m (float[N,3,H,W] x, float[3] s, float[3] b) => (float[N,3,H,W] y)"
    text += " { y = InstanceNormalization (x, s, b) }"
    agree(text, *[(numbers(n, 3, 4, 5), numbers(3), numbers(3)) for n in (1, 2)], atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_neighbouring_channels(size: int) -> None:
    text = "m (float[N,5,H] x) => (float[N,5,H] y)"
    text += f" {{ y = LRN <size = {size}, alpha = 0.3, beta = 0.6, bias = 1.5> (x) }}"
    x = numbers(2, 5, 3).astype(np.float64)
    sums = [
        np.square(x[:, max(0, c - (size - 1) // 2) : c + size // 2 + 1]).sum(1) for c in range(5)
    ]
    expected = x / (1.5 + 0.3 / size * np.stack(sums, 1)) ** 0.6
    close(run(text, x.astype(np.float32))[0], expected)


@pytest.mark.parametrize("p", [1, 2])
def test_rows_of_zeros_stay(p: int) -> None:
    text = f"m (float[N,4] x) => (float[N,4] y) {{ y = LpNormalization <p = {p}> (x) }}"
    x = np.array([[3, 0, -4, 0], [0, 0, 0, 0]], np.float32)
    length = {1: 7, 2: 5}[p]
    same(run(text, x), [x / np.array([[length], [1]], np.float32)], rtol=1e-6)
