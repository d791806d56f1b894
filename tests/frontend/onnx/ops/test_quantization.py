"""QuantizeLinear and DequantizeLinear in all their forms, against ONNX's reference evaluator.

What ONNX Runtime can do of it is compared with ONNX Runtime as well. The conformance suite has
more cases; these are the combinations that it lacks.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from tests.frontend.onnx.ops.runtime import agree, model_of, ours

LAST = 25
KINDS = {
    name: np.dtype(getattr(ml_dtypes, name, None) or getattr(np, name, None))
    for name in ("int8", "uint8", "int16", "uint16", "int4", "uint4")
}


def limits(kind: np.dtype) -> tuple[int, int]:
    info = ml_dtypes.iinfo(kind)
    return int(info.min), int(info.max)


def random_integers(kind: np.dtype, *shape: int) -> np.ndarray:
    low, high = limits(kind)
    return np.random.default_rng(1).integers(low, high + 1, shape).astype(kind)


def parts(kind: np.dtype, form: str) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Scale, zero point and attributes for a tensor [6, 10, 4]."""
    shape, attributes = {
        "tensor": ((), {}),
        "axis 0": ((6,), {"axis": 0}),
        "axis -1": ((4,), {"axis": -1}),
        "blocks": ((6, 4, 4), {"axis": 1, "block_size": 3}),
    }[form]
    steps = (np.random.default_rng(2).random(shape) * 0.1 + 0.01).astype(np.float32)
    return np.asarray(steps), np.asarray(random_integers(kind, *shape)).astype(kind), attributes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ("tensor", "axis 0", "axis -1", "blocks"))
@pytest.mark.parametrize("with_zero", (True, False))
def test_dequantize(kind: str, form: str, with_zero: bool) -> None:
    steps, origin, attributes = parts(KINDS[kind], form)
    inputs = {"x": random_integers(KINDS[kind], 6, 10, 4), "scale": steps}
    inputs |= {"zero": origin} if with_zero else {}
    options: dict[str, Any] = {"domain": "", "opset": LAST, "attributes": attributes}
    model = model_of("DequantizeLinear", inputs, constants=("x", "zero"), **options)
    expected = ReferenceEvaluator(model).run(None, {"scale": steps})[0]
    np.testing.assert_array_equal(ours(model, inputs)[0], expected)


@pytest.mark.parametrize("kind", ("int8", "uint8", "int16", "uint16"))
@pytest.mark.parametrize("form", ("tensor", "axis 0", "axis -1", "blocks"))
def test_quantize(kind: str, form: str) -> None:
    steps, origin, attributes = parts(KINDS[kind], form)
    x = np.random.default_rng(3).standard_normal((6, 10, 4)).astype(np.float32) * 5
    inputs = {"x": x, "scale": steps, "zero": origin}
    options: dict[str, Any] = {"domain": "", "attributes": attributes, "open_sizes": (6, 10)}
    agree("QuantizeLinear", inputs, atol=0, **options)


@pytest.mark.parametrize("kind", ("INT16", "UINT16", "INT8", "UINT8"))
def test_the_type_of_the_result_may_be_an_attribute(kind: str) -> None:
    x = np.linspace(-300, 300, 41, dtype=np.float32)
    inputs = {"x": x, "scale": np.array(0.5, np.float32)}
    attributes = {"output_dtype": helper.np_dtype_to_tensor_dtype(KINDS[kind.lower()])}
    agree("QuantizeLinear", inputs, atol=0, domain="", attributes=attributes)


@pytest.mark.parametrize("values", ((-3, 0, 5.5), (0.5, 2, 3), (-7, -1, -0.1), (0, 0, 0)))
def test_dynamic_quantize_linear(values: tuple[float, ...]) -> None:
    """Ranges on both sides of 0, on one side only, and none."""
    inputs = {"x": np.array([values, values[::-1]], dtype=np.float32)}
    agree("DynamicQuantizeLinear", inputs, (0, 1, 2), domain="", open_sizes=(2, 3))


def test_qlinear_matmul_with_rows_and_columns() -> None:
    rng = np.random.default_rng(4)
    inputs = {"a": rng.integers(0, 256, (3, 8)).astype(np.uint8)}
    inputs |= {"a_scale": np.array(0.02, np.float32), "a_zero": np.array(120, np.uint8)}
    inputs |= {"b": rng.integers(-128, 128, (8, 4)).astype(np.int8)}
    inputs |= {"b_scale": np.array([0.01, 0.02, 0.03, 0.04], np.float32)}
    inputs |= {"b_zero": np.array([0, 1, -2, 3], np.int8)}
    inputs |= {"y_scale": np.array(0.3, np.float32), "y_zero": np.array(100, np.uint8)}
    agree("QLinearMatMul", inputs, atol=0, domain="", open_sizes=(3,))


@pytest.mark.parametrize("bias", (True, False))
@pytest.mark.parametrize("group", (1, 2))
def test_qlinear_conv_per_channel(bias: bool, group: int) -> None:
    rng = np.random.default_rng(5)
    inputs = {"x": rng.integers(0, 256, (2, 4, 7, 7)).astype(np.uint8)}
    inputs |= {"x_scale": np.array(0.02, np.float32), "x_zero": np.array(120, np.uint8)}
    inputs |= {"w": rng.integers(-128, 128, (6, 4 // group, 3, 3)).astype(np.int8)}
    inputs |= {"w_scale": (rng.random(6) * 0.02 + 0.01).astype(np.float32)}
    inputs |= {"w_zero": np.zeros(6, np.int8)}
    inputs |= {"y_scale": np.array(0.9, np.float32), "y_zero": np.array(110, np.uint8)}
    if bias:
        inputs["bias"] = rng.integers(-9999, 9999, 6).astype(np.int32)
    attributes = {"pads": [1, 1, 1, 1], "strides": [2, 1], "group": group}
    constants = ("w", "w_scale", "w_zero", "bias")
    options: dict[str, Any] = {"domain": "", "constants": constants, "open_sizes": (2,)}
    agree("QLinearConv", inputs, atol=0, attributes=attributes, **options)
