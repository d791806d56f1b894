"""Weights that others have quantized: MatMulNBits and GatherBlockQuantized."""

from __future__ import annotations

from itertools import product
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir
import pytest

from effc.diagnostics import ModelError
from effc.frontend.onnx.importer import import_model
from effc.ir.program import Program
from tests.frontend.onnx.ops.runtime import agree, both, model_of, ours

CONSTANTS = ("b", "scales", "zero_points", "bias")
N = 10


def weight(
    columns: int, block: int, bits: int, zero_points: str = "", dtype: Any = np.float32
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Inputs and attributes of MatMulNBits over random codes."""
    rng = np.random.default_rng(columns * block + bits)
    blocks = -(-columns // block)
    inputs = {"a": rng.standard_normal((2, 3, columns)).astype(dtype)}
    inputs["b"] = rng.integers(0, 256, (N, blocks, block * bits // 8)).astype(np.uint8)
    inputs["scales"] = (rng.random((N, blocks)) * 0.1 + 0.01).astype(dtype)
    if zero_points == "packed":
        packed = rng.integers(0, 256, (N, -(-blocks * bits // 8)))
        inputs["zero_points"] = packed.astype(np.uint8)
    elif zero_points == "whole":
        inputs["zero_points"] = rng.integers(0, 2**bits, (N, blocks)).astype(dtype)
    elif zero_points == "fractions":
        inputs["zero_points"] = (rng.random((N, blocks)) * 2**bits).astype(dtype)
    return inputs, {"K": columns, "N": N, "block_size": block, "bits": bits}


def program_of(inputs: dict[str, Any], attributes: dict[str, int]) -> Program:
    model = model_of("MatMulNBits", inputs, constants=CONSTANTS, attributes=attributes)
    return import_model(onnx_ir.from_proto(model), "test")


def check(inputs: dict[str, Any], attributes: dict[str, int], atol: float = 5e-5) -> None:
    options: dict[str, Any] = {"constants": CONSTANTS, "open_sizes": (2, 3)}
    agree("MatMulNBits", inputs, atol=atol, attributes=attributes, **options)


# ONNX Runtime has no kernel for 8 bits with zero points of the type of the inputs.
FORMS = [*product((2, 4, 8), ("", "packed")), *product((2, 4), ("whole", "fractions"))]


@pytest.mark.parametrize(("bits", "zero_points"), FORMS)
@pytest.mark.parametrize("level", (0, 4))
def test_bits_and_zero_points(bits: int, zero_points: str, level: int) -> None:
    inputs, attributes = weight(64, 32, bits, zero_points)
    check(inputs, attributes | {"accuracy_level": level})


@pytest.mark.parametrize("columns", (32, 64, 100, 257))
@pytest.mark.parametrize("block", (16, 32, 64, 256))
@pytest.mark.parametrize("level", (0, 4))
def test_blocks(columns: int, block: int, level: int) -> None:
    inputs, attributes = weight(columns, block, 4, "packed")
    check(inputs, attributes | {"accuracy_level": level})


def test_bias() -> None:
    inputs, attributes = weight(64, 32, 4)
    bias = np.linspace(-1, 1, N, dtype=np.float32)
    check(inputs | {"zero_points": None, "g_idx": None, "bias": bias}, attributes)


@pytest.mark.parametrize("level", (0, 4))
def test_float16(level: int) -> None:
    """Both round the result once; sums differ in their order only."""
    inputs, attributes = weight(64, 32, 4, "packed", np.float16)
    attributes |= {"accuracy_level": level}
    (pair,) = both("MatMulNBits", inputs, constants=CONSTANTS, attributes=attributes)
    found, expected = (side.astype(np.float64) for side in pair)
    assert (np.abs(found - expected) <= np.spacing(np.abs(pair[1])).astype(np.float64)).all()


@pytest.mark.parametrize(
    ("bits", "zero_points", "stored"),
    ((4, "", 4 + 32 / 32), (4, "packed", 4 + 36 / 32), (2, "", 3), (8, "packed", 8 + 40 / 32)),
)
def test_weights_stay_packed(bits: int, zero_points: str, stored: float) -> None:
    """Bits per weight: those of the file, with its scales of float32."""
    program = program_of(*weight(256, 32, bits, zero_points))
    nbytes = sum(program.weights[name].nbytes for name in program.read_weights())
    assert nbytes * 8 / (N * 256) == stored


def test_scales_keep_their_type() -> None:
    for dtype, kept in ((np.float16, "float16"), (ml_dtypes.bfloat16, "float32")):
        program = program_of(*weight(64, 32, 4, dtype=dtype))
        found = {str(w.dtype) for name, w in program.weights.items() if name.endswith(".scale")}
        assert found == {f"torch.{kept}"}


def test_bfloat16_is_dequantized_exactly() -> None:
    """ONNX Runtime has no bfloat16 on CPUs; the product with the identity shows the weight."""
    inputs, attributes = weight(64, 32, 4, dtype=ml_dtypes.bfloat16)
    inputs["a"] = np.eye(64, dtype=np.float32)
    model = model_of("MatMulNBits", inputs, constants=CONSTANTS, attributes=attributes)
    nibbles = np.stack([inputs["b"] & 15, inputs["b"] >> 4], -1).reshape(N, 2, 32)
    exact = (nibbles - 8.0) * inputs["scales"].astype(np.float64)[..., None]
    assert np.array_equal(ours(model, inputs)[0], exact.reshape(N, 64).T)


def test_what_has_no_translation_is_refused() -> None:
    inputs, attributes = weight(64, 32, 4)
    ordered = inputs | {"zero_points": None, "g_idx": np.zeros(64, np.int32)}
    with pytest.raises(ModelError, match="E0307.*g_idx"):
        program_of(ordered, attributes)
    with pytest.raises(ModelError, match="E0307.*weight_prepacked"):
        program_of(inputs, attributes | {"weight_prepacked": 1})
    with pytest.raises(ModelError, match="E0306.*bytes of codes"):
        program_of(inputs, attributes | {"K": 128})
    model = model_of("MatMulNBits", inputs, constants=("scales",), attributes=attributes)
    with pytest.raises(ModelError, match="E0307.*the weight of packed weights must be constant"):
        import_model(onnx_ir.from_proto(model), "test")


def table(
    width: int, block: int, bits: int, zero_points: bool
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    rng = np.random.default_rng(width + bits)
    groups = -(-width // block)
    inputs = {"data": rng.integers(0, 256, (9, width * bits // 8)).astype(np.uint8)}
    inputs["indices"] = rng.integers(0, 9, (2, 3))
    inputs["scales"] = rng.standard_normal((9, groups)).astype(np.float32)
    if zero_points:
        packed = rng.integers(0, 256, (9, -(-groups * bits // 8)))
        inputs["zero_points"] = packed.astype(np.uint8)
    return inputs, {"bits": bits, "block_size": block, "quantize_axis": 1}


TABLE = ("data", "scales", "zero_points")


@pytest.mark.parametrize("bits", (2, 4, 8))
@pytest.mark.parametrize(("width", "block"), ((64, 16), (64, 32), (64, 128), (96, 64)))
@pytest.mark.parametrize("zero_points", (True, False))
def test_rows_of_a_table(bits: int, width: int, block: int, zero_points: bool) -> None:
    inputs, attributes = table(width, block, bits, zero_points)
    for dtype in (np.int64, np.int32):
        inputs["indices"] = inputs["indices"].astype(dtype)
        options: dict[str, Any] = {"constants": TABLE, "open_sizes": (2, 3)}
        agree("GatherBlockQuantized", inputs, atol=0, attributes=attributes, **options)


@pytest.mark.parametrize("kind", (ml_dtypes.uint4, ml_dtypes.int4))
@pytest.mark.parametrize("zero_points", (True, False))
@pytest.mark.parametrize(("gathered", "quantized"), ((0, 1), (1, 0), (0, 0)))
def test_tables_of_4_bit_types(kind: Any, zero_points: bool, gathered: int, quantized: int) -> None:
    rng = np.random.default_rng(1)
    low = int(ml_dtypes.iinfo(kind).min)
    inputs = {"data": rng.integers(low, low + 16, (64, 64)).astype(kind)}
    inputs["indices"] = rng.integers(0, 64, (2, 3))
    shape = (64, 4) if quantized else (4, 64)
    inputs["scales"] = rng.standard_normal(shape).astype(np.float32)
    if zero_points:
        inputs["zero_points"] = rng.integers(low, low + 16, shape).astype(kind)
    attributes = {"block_size": 16, "gather_axis": gathered, "quantize_axis": quantized}
    agree("GatherBlockQuantized", inputs, atol=0, constants=TABLE, attributes=attributes)
