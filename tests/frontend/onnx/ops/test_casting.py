"""Casts against ml_dtypes and against the neighbours of every value."""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import effc
from effc.diagnostics import EffcError

# Every float16 that is a number: more than any type of eight bits or less can tell apart.
ALL = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
FINITE = ALL[np.isfinite(ALL)]

FLOAT8 = {
    TensorProto.FLOAT8E4M3FN: (ml_dtypes.float8_e4m3fn, torch.float8_e4m3fn),
    TensorProto.FLOAT8E4M3FNUZ: (ml_dtypes.float8_e4m3fnuz, torch.float8_e4m3fnuz),
    TensorProto.FLOAT8E5M2: (ml_dtypes.float8_e5m2, torch.float8_e5m2),
    TensorProto.FLOAT8E5M2FNUZ: (ml_dtypes.float8_e5m2fnuz, torch.float8_e5m2fnuz),
}


def cast(source: int, to: int, opset: int = 25, **attributes: object) -> effc.Program:
    """A program that casts a vector."""
    node = helper.make_node("Cast", ["x"], ["y"], to=to, **attributes)
    graph = helper.make_graph(
        [node],
        "cast",
        [helper.make_tensor_value_info("x", source, ["n"])],
        [helper.make_tensor_value_info("y", to, ["n"])],
    )
    imports = [helper.make_opsetid("", opset)]
    return effc.import_onnx(helper.make_model(graph, opset_imports=imports, ir_version=11))


@pytest.mark.parametrize("to", FLOAT8)
def test_float8_without_saturation_is_what_ml_dtypes_has(to: int) -> None:
    array, dtype = FLOAT8[to]
    (found,) = cast(TensorProto.FLOAT, to, saturate=0)(torch.from_numpy(ALL))  # type: ignore[operator]
    with np.errstate(all="ignore"):
        wanted = ALL.astype(array).astype(np.float32)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.float().numpy(), wanted)


@pytest.mark.parametrize("to", FLOAT8)
def test_saturation_changes_only_what_lies_beyond_the_largest_number(to: int) -> None:
    array, _ = FLOAT8[to]
    (found,) = cast(TensorProto.FLOAT, to)(torch.from_numpy(ALL))  # type: ignore[operator]
    largest = float(ml_dtypes.finfo(array).max)
    with np.errstate(all="ignore"):
        wanted = np.clip(ALL, -largest, largest).astype(array).astype(np.float32)
    np.testing.assert_array_equal(found.float().numpy(), wanted)
    assert wanted[~np.isnan(wanted)].max() == largest


@pytest.mark.parametrize(
    ("to", "array", "bits", "low"),
    [
        (TensorProto.INT4, ml_dtypes.int4, 4, -8),
        (TensorProto.UINT4, ml_dtypes.uint4, 4, 0),
        (TensorProto.INT2, ml_dtypes.int2, 2, -2),
        (TensorProto.UINT2, ml_dtypes.uint2, 2, 0),
    ],
)
def test_small_integers_keep_the_lowest_bits(to: int, array: type, bits: int, low: int) -> None:
    values = np.arange(-128, 128, dtype=np.int8)
    (found,) = cast(TensorProto.INT8, to)(torch.from_numpy(values))  # type: ignore[operator]
    assert found.dtype == np.dtype(array)
    wanted = [(int(v) - low) % (1 << bits) + low for v in values]
    assert found.astype(int).tolist() == wanted
    fractions = np.float32([-1.75, -0.5, 0.5, 1.75])
    (whole,) = cast(TensorProto.FLOAT, to)(torch.from_numpy(fractions))  # type: ignore[operator]
    assert whole.astype(int).tolist() == [(v - low) % (1 << bits) + low for v in (-1, 0, 0, 1)]


def test_float4_rounds_to_the_nearest_value_and_ties_to_the_even_one() -> None:
    grid = np.float32([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    (found,) = cast(TensorProto.FLOAT, TensorProto.FLOAT4E2M1)(torch.from_numpy(FINITE))  # type: ignore[operator]
    assert found.dtype == np.dtype(ml_dtypes.float4_e2m1fn)
    found = found.astype(np.float32)
    distance = np.abs(np.abs(FINITE)[:, None] - grid)
    nearest = distance == distance.min(axis=1, keepdims=True)
    # Every other value of the grid has an even mantissa, so one of two nearest ones is even.
    even = nearest & ([True, False] * 4)
    wanted = np.where(nearest.sum(1) > 1, even @ grid, nearest @ grid)
    np.testing.assert_array_equal(np.abs(found), wanted)
    assert (np.signbit(found) == np.signbit(FINITE)).all()


def test_e8m0_takes_the_next_power_of_two() -> None:
    values = np.float32(
        [2.0**e * m for e, m in itertools.product(range(-126, 127), (1, 1.25, 1.5))]
    )
    for mode, bound in (("up", 1.0), ("down", 2.0), ("nearest", 1.5)):
        program = cast(TensorProto.FLOAT, TensorProto.FLOAT8E8M0, round_mode=mode)
        (found,) = program(torch.from_numpy(values))  # type: ignore[operator]
        assert found.dtype == np.dtype(ml_dtypes.float8_e8m0fnu)
        mantissa, exponent = np.frexp(values.astype(np.float64))
        up = 2 * mantissa >= bound if mode == "nearest" else 2 * mantissa > bound
        wanted = np.ldexp(1.0, exponent - 1 + (up & (mode != "down")))
        np.testing.assert_array_equal(found.astype(np.float64), wanted)


def test_e8m0_of_values_that_it_lacks() -> None:
    values = torch.tensor([0.0, 2.0**-128, float("inf"), float("nan"), 3e38])
    smallest, largest = 2.0**-127, 2.0**127
    (found,) = cast(TensorProto.FLOAT, TensorProto.FLOAT8E8M0)(values)  # type: ignore[operator]
    wanted = [smallest, smallest, largest, np.nan, largest]
    np.testing.assert_array_equal(found.astype(np.float64), wanted)
    program = cast(TensorProto.FLOAT, TensorProto.FLOAT8E8M0, saturate=0, round_mode="nearest")
    (found,) = program(values)  # type: ignore[operator]
    np.testing.assert_array_equal(np.isnan(found.astype(np.float64)), [True] * 5)


def test_a_cast_like_takes_the_declared_type() -> None:
    graph = helper.make_graph(
        [helper.make_node("CastLike", ["x", "like"], ["y"])],
        "cast_like",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [3]),
            helper.make_tensor_value_info("like", TensorProto.UINT4, [1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.UINT4, [3])],
    )
    imports = [helper.make_opsetid("", 21)]
    program = effc.import_onnx(helper.make_model(graph, opset_imports=imports, ir_version=10))
    like = np.zeros(1, ml_dtypes.uint4)
    (found,) = program(torch.tensor([3.0, 17.0, 15.0]), like)
    assert found.dtype == np.dtype(ml_dtypes.uint4)
    assert found.astype(int).tolist() == [3, 1, 15]


def test_strings_are_refused() -> None:
    with pytest.raises(EffcError, match="E0307"):
        cast(TensorProto.STRING, onnx.TensorProto.FLOAT)
    with pytest.raises(EffcError, match="E0307"):
        cast(TensorProto.FLOAT, TensorProto.STRING)
