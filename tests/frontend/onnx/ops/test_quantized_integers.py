"""Operators on 8-bit integers, of com.microsoft and of the standard, as ONNX Runtime has them.

Where an operator rounds to integers, results that lie almost in the middle may go either way: a
float32 quotient decides, and its last bit depends on the order of operations. Everywhere else the
integers must be equal; the exact value, in float64, tells which case it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.frontend.onnx.ops.runtime import agree, both

TYPES = {"uint8": np.uint8, "int8": np.int8}
Array = np.ndarray


def integers(kind: str, *shape: int, seed: int = 0) -> Array:
    info = np.iinfo(TYPES[kind])
    return np.random.default_rng(seed).integers(info.min, info.max + 1, shape).astype(TYPES[kind])


def scale(*values: float) -> Array:
    return np.array(values if len(values) > 1 else values[0], dtype=np.float32)


def zero(kind: str, *values: int) -> Array:
    middle = 128 if kind == "uint8" else 0
    moved = [middle + value for value in values]
    return np.array(moved if len(moved) > 1 else moved[0], dtype=TYPES[kind])


def real(x: Array, step: Array, origin: Array) -> Array:
    return (x.astype(np.float64) - origin) * step.astype(np.float64)


def check(op_type: str, inputs: dict[str, Array], exact: Array, **options: Any) -> None:
    """Compare integers, except where the exact value, in steps, is a tie up to float32."""
    ((found, expected),) = both(op_type, inputs, **options)
    differs = found != expected
    assert (np.abs(found.astype(int) - expected.astype(int)) <= 1).all()
    from_tie = np.abs(exact - np.floor(exact) - 0.5)
    assert (from_tie[differs] < 2.0**-20 * np.maximum(np.abs(exact), 256)[differs]).all()
    assert differs.mean() < 0.02


FUNCTIONS: dict[str, tuple[Callable[[Any], Any], dict[str, Any], float]] = {
    "QLinearSigmoid": (torch.sigmoid, {}, 1 / 256),
    "QLinearLeakyRelu": (lambda x: F.leaky_relu(x, 0.1), {"alpha": 0.1}, 0.02),
    "QLinearSoftmax": (lambda x: x.softmax(1), {"axis": 1, "opset": 13}, 1 / 256),
    "QLinearGlobalAveragePool": (lambda x: x.mean((2, 3), keepdim=True), {}, 0.01),
    "QLinearAveragePool": (
        lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [1, 1]},
        0.0113,
    ),
}


@pytest.mark.parametrize("op_type", FUNCTIONS)
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("last", (0, 1))
def test_functions_of_one_tensor(op_type: str, kind: str, last: int) -> None:
    function, attributes, step = FUNCTIONS[op_type]
    x = integers(kind, 2, 5, 7, 6)
    inputs = {"x": x, "x_scale": scale(0.02), "x_zero": zero(kind, -8)}
    inputs |= {"y_scale": scale(step), "y_zero": zero(kind, 3)}
    values = torch.from_numpy(real(x, *list(inputs.values())[1:3]))
    exact = function(values).numpy() / np.float64(np.float32(step)) + int(inputs["y_zero"])
    if "Pool" in op_type:
        attributes = attributes | {"channels_last": last}
        if last:
            inputs["x"] = np.ascontiguousarray(np.moveaxis(x, 1, -1))
            exact = np.moveaxis(exact, 1, -1)
    check(op_type, inputs, exact, open_sizes=(2,), attributes=attributes)


@pytest.mark.parametrize("axis", (1, 2, -1))
def test_softmax_of_old_models_is_over_all_trailing_dimensions(axis: int) -> None:
    x = integers("uint8", 2, 5, 7)
    inputs = {"x": x, "x_scale": scale(0.02), "x_zero": zero("uint8", -8)}
    inputs |= {"y_scale": scale(1 / 256), "y_zero": zero("uint8", -128)}
    values = torch.from_numpy(real(x, scale(0.02), inputs["x_zero"]))
    flat = values.flatten(axis % 3).softmax(-1).reshape(x.shape).numpy()
    check("QLinearSoftmax", inputs, flat * 256, attributes={"axis": axis, "opset": 11})


@pytest.mark.parametrize("op_type", ("QLinearAdd", "QLinearMul"))
@pytest.mark.parametrize("kind", TYPES)
def test_two_tensors(op_type: str, kind: str) -> None:
    a, b = integers(kind, 2, 3, 50), integers(kind, 3, 1, seed=1)
    inputs = {"a": a, "a_scale": scale(0.0213), "a_zero": zero(kind, -8)}
    inputs |= {"b": b, "b_scale": scale(0.0517), "b_zero": zero(kind, 5)}
    inputs |= {"c_scale": scale(0.0389), "c_zero": zero(kind, 2)}
    values = list(inputs.values())
    left, right = real(*values[:3]), real(*values[3:6])
    whole = left + right if op_type == "QLinearAdd" else left * right
    exact = whole / values[6].astype(np.float64) + int(values[7])
    check(op_type, inputs, np.broadcast_to(exact, a.shape), open_sizes=(2,))


@pytest.mark.parametrize("kind", TYPES)
def test_concat_and_where(kind: str) -> None:
    given = {"z_scale": scale(0.04), "z_zero": zero(kind, 2)}
    parts = {"a": integers(kind, 2, 5), "a_scale": scale(0.02), "a_zero": zero(kind, -8)}
    parts |= {"b": integers(kind, 2, 5, seed=1), "b_scale": scale(0.05), "b_zero": zero(kind, 5)}
    a, b = (real(*list(parts.values())[i : i + 3]) for i in (0, 3))
    step, origin = given["z_scale"].astype(np.float64), int(given["z_zero"])
    exact = np.concatenate([a, b], 1) / step + origin
    check("QLinearConcat", given | parts, exact, attributes={"axis": 1})
    chosen = np.random.default_rng(2).random((2, 5)) < 0.5
    exact = np.where(chosen, a, b) / step + origin
    check("QLinearWhere", {"condition": chosen} | parts | given, exact)


# ONNX Runtime has no kernel for int8 times uint8.
PAIRS = (("uint8", "uint8"), ("uint8", "int8"), ("int8", "int8"))


@pytest.mark.parametrize(("a_kind", "b_kind"), PAIRS)
@pytest.mark.parametrize("per_column", (True, False))
def test_products_of_integers(a_kind: str, b_kind: str, per_column: bool) -> None:
    a, b = integers(a_kind, 2, 3, 6), integers(b_kind, 6, 4, seed=1)
    steps = scale(0.01, 0.02, 0.03, 0.04) if per_column else scale(0.02)
    origins = zero(b_kind, 1, 2, 3, 4) if per_column else zero(b_kind, 2)
    bias = np.linspace(-1, 1, 4, dtype=np.float32)
    inputs = {"a": a, "b": b, "a_scale": scale(0.02), "b_scale": steps}
    inputs |= {"a_zero": zero(a_kind, -8), "b_zero": origins, "bias": bias}
    agree("MatMulIntegerToFloat", inputs, open_sizes=(2, 3))
    x = np.random.default_rng(3).standard_normal((2, 3, 6)).astype(np.float32)
    inputs = {"a": x, "b": b, "b_scale": steps, "b_zero": origins, "bias": bias}
    agree("DynamicQuantizeMatMul", inputs, open_sizes=(2, 3))


@pytest.mark.parametrize("transposed", ((0, 0), (0, 1), (1, 0), (1, 1)))
@pytest.mark.parametrize("real_result", (True, False))
def test_qgemm(transposed: tuple[int, int], real_result: bool) -> None:
    a, b = integers("uint8", 5, 6), integers("uint8", 6, 4, seed=1)
    c = np.array([-99, 3, 500, 0], dtype=np.int32)
    steps, origins = scale(0.01, 0.02, 0.03, 0.04), zero("uint8", 1, 2, 3, 4)
    a_zero, y_zero = zero("uint8", -8), zero("uint8", 2)
    turned_a, turned_b = (m.T.copy() if t else m for m, t in zip((a, b), transposed, strict=True))
    inputs = {"a": turned_a, "a_scale": scale(0.02), "a_zero": a_zero}
    inputs |= {"b": turned_b, "b_scale": steps, "b_zero": origins, "c": c}
    attributes = {"transA": transposed[0], "transB": transposed[1], "alpha": 1.0}
    exact = (real(a, scale(1), a_zero) @ real(b, scale(1), origins) + c) * (
        steps.astype(np.float64) * np.float64(np.float32(0.02))
    )
    if real_result:
        agree("QGemm", inputs, attributes=attributes)
        del inputs["c"]
        agree("QGemm", inputs, attributes=attributes | {"alpha": 0.5})
    else:
        inputs |= {"y_scale": scale(0.5), "y_zero": y_zero}
        check("QGemm", inputs, exact / 0.5 + int(y_zero), attributes=attributes)
