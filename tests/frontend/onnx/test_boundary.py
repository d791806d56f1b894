"""What callers pass to an imported program and get back, and what is refused on the way in."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import effc
from effc.diagnostics import EffcError, GenerationError
from effc.importing import ImportedProgram

FOREIGN = {
    TensorProto.INT4: ml_dtypes.int4,
    TensorProto.UINT4: ml_dtypes.uint4,
    TensorProto.INT2: ml_dtypes.int2,
    TensorProto.UINT2: ml_dtypes.uint2,
    TensorProto.FLOAT4E2M1: ml_dtypes.float4_e2m1fn,
    TensorProto.FLOAT8E8M0: ml_dtypes.float8_e8m0fnu,
}
SHARED = {
    TensorProto.FLOAT: (np.float32, torch.float32),
    TensorProto.FLOAT16: (np.float16, torch.float16),
    TensorProto.BFLOAT16: (ml_dtypes.bfloat16, torch.bfloat16),
    TensorProto.FLOAT8E4M3FN: (ml_dtypes.float8_e4m3fn, torch.float8_e4m3fn),
    TensorProto.FLOAT8E4M3FNUZ: (ml_dtypes.float8_e4m3fnuz, torch.float8_e4m3fnuz),
    TensorProto.FLOAT8E5M2: (ml_dtypes.float8_e5m2, torch.float8_e5m2),
    TensorProto.FLOAT8E5M2FNUZ: (ml_dtypes.float8_e5m2fnuz, torch.float8_e5m2fnuz),
    TensorProto.INT8: (np.int8, torch.int8),
    TensorProto.UINT64: (np.uint64, torch.uint64),
    TensorProto.BOOL: (np.bool_, torch.bool),
}


def identity(*types: onnx.TypeProto) -> ImportedProgram:
    """A program that returns what it is given."""
    names = [f"x{i}" for i in range(len(types))]
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}_out"]) for name in names],
        "identity",
        [helper.make_value_info(name, type) for name, type in zip(names, types, strict=True)],
        [
            helper.make_value_info(f"{name}_out", type)
            for name, type in zip(names, types, strict=True)
        ],
    )
    imports = [helper.make_opsetid("", 25)]
    return effc.import_onnx(helper.make_model(graph, opset_imports=imports, ir_version=11))


def tensor(kind: int = TensorProto.FLOAT, shape: Any = ("n",)) -> onnx.TypeProto:
    return helper.make_tensor_type_proto(kind, shape)


@pytest.mark.parametrize("kind", FOREIGN)
def test_types_that_torch_lacks_are_arrays(kind: int) -> None:
    every = np.arange(256).astype(np.uint8).view(ml_dtypes.float8_e8m0fnu)
    if kind != TensorProto.FLOAT8E8M0:
        every = np.unique(np.arange(-8, 16).astype(np.float32).astype(FOREIGN[kind]))
    (found,) = identity(tensor(kind))(every)
    assert found.dtype == every.dtype == np.dtype(FOREIGN[kind])
    np.testing.assert_array_equal(found.astype(np.float64), every.astype(np.float64))


@pytest.mark.parametrize("kind", SHARED)
def test_types_that_torch_has_are_tensors_and_may_be_arrays(kind: int) -> None:
    array_type, dtype = SHARED[kind]
    array = np.array([0, 1, 3]).astype(array_type)
    program = identity(tensor(kind))
    (found,) = program(array)
    assert found.dtype == dtype
    assert found.tolist() == array.astype(np.float64).tolist()
    (again,) = program(found)
    assert again.dtype == dtype
    assert again.tolist() == found.tolist()


def test_sequences_are_lists_and_absent_optionals_are_none() -> None:
    elements = helper.make_sequence_type_proto(tensor())
    program = identity(elements, helper.make_optional_type_proto(elements))
    items = [torch.ones(2), torch.zeros(3)]
    found, absent = program(items, None)
    assert [item.tolist() for item in found] == [[1, 1], [0, 0, 0]]
    assert absent is None
    _, present = program(items, items)
    assert [item.tolist() for item in present] == [[1, 1], [0, 0, 0]]


def test_initializers_are_no_inputs() -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "old",
        [
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [2]),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        [helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])],
    )
    imports = [helper.make_opsetid("", 9)]
    program = effc.import_onnx(helper.make_model(graph, opset_imports=imports, ir_version=3))
    assert program(torch.zeros(2))[0].tolist() == [1.0, 2.0]


FLOATS = torch.zeros(3)


@pytest.mark.parametrize(
    ("inputs", "where", "message"),
    [
        ((FLOATS,), None, "the program takes 3 inputs (x0, x1, x2), found 1"),
        ((FLOATS, FLOATS, [], FLOATS), None, "the program takes 3 inputs (x0, x1, x2), found 4"),
        ((None, FLOATS, []), "input x0", "a float32 tensor is expected, found nothing"),
        ((3.0, FLOATS, []), "input x0", "a float32 tensor is expected, found a float"),
        (([FLOATS], FLOATS, []), "input x0", "a float32 tensor is expected, found a list"),
        (
            (FLOATS.long(), FLOATS, []),
            "input x0",
            "a float32 tensor is expected, found int64 [3]",
        ),
        (
            (np.zeros(3), FLOATS, []),
            "input x0",
            "a float32 tensor is expected, found float64 [3]",
        ),
        ((FLOATS[None], FLOATS, []), "input x0", "float32 [n] is expected, found float32 [1, 3]"),
        (
            (FLOATS, torch.zeros(2), []),
            "input x1",
            "float32 [n] with n = 3 as in x0 is expected, found float32 [2]",
        ),
        (
            (FLOATS, FLOATS, FLOATS),
            "input x2",
            "a list of float32 tensors is expected, found float32 [3]",
        ),
        (
            (FLOATS, FLOATS, [FLOATS.int()]),
            "input x2",
            "a float32 tensor is expected, found int32 [3]",
        ),
    ],
)
def test_what_does_not_fit_is_named(inputs: Any, where: str | None, message: str) -> None:
    program = identity(tensor(), tensor(), helper.make_sequence_type_proto(tensor(shape=None)))
    with pytest.raises(GenerationError, match="E0703") as error:
        program(*inputs)
    assert error.value.message == message
    assert error.value.where == where


def test_a_carrier_is_not_taken_for_what_it_carries() -> None:
    program = identity(tensor(TensorProto.INT4))
    with pytest.raises(GenerationError, match="E0703") as error:
        program(torch.zeros(3, dtype=torch.int8))
    assert error.value.message == "a numpy array of int4 is expected, found int8 [3]"


@pytest.mark.parametrize(
    "type",
    [
        tensor(TensorProto.STRING),
        helper.make_sequence_type_proto(tensor(TensorProto.STRING)),
        helper.make_optional_type_proto(tensor(TensorProto.STRING)),
        helper.make_sequence_type_proto(helper.make_sequence_type_proto(tensor())),
    ],
)
def test_values_that_no_program_computes_with_are_refused(type: onnx.TypeProto) -> None:
    with pytest.raises(EffcError, match="E0307"):
        identity(type)


def test_a_model_without_a_known_rank_runs_but_is_not_compiled() -> None:
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [given], [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)])
    (found,) = effc.import_onnx(model)(torch.tensor([-1.0, 2.0]))
    assert found.tolist() == [0.0, 2.0]
    with pytest.raises(EffcError, match="number of dimensions of x") as caught:
        effc.optimize(model)
    assert caught.value.code == "E0306"
