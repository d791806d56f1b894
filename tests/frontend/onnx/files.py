"""Small ONNX files, sound ones to be spoiled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from effc.diagnostics import ModelError
from effc.frontend.onnx.reader import read_model

FLOAT = TensorProto.FLOAT


def tiny(opset: int = 18) -> onnx.ModelProto:
    """y = relu(x @ w + b), with x of [N, 4], w of [4, 3]; the nodes are named as in a file."""
    weight = np.arange(12, dtype=np.float32).reshape(4, 3) - 5
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="project"),
        helper.make_node("Add", ["h", "b"], ["s"], name="shift"),
        helper.make_node("Relu", ["s"], ["y"], name="clip"),
    ]
    return model(
        nodes,
        [helper.make_tensor_value_info("x", FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", FLOAT, ["N", 3])],
        [
            numpy_helper.from_array(weight, "w"),
            numpy_helper.from_array(np.ones(3, np.float32), "b"),
        ],
        opset,
    )


def branches() -> onnx.ModelProto:
    """y = x + x if flag else x * w; the branches read values of the graph around them."""
    output = [helper.make_tensor_value_info("z", FLOAT, None)]
    then = helper.make_graph([helper.make_node("Add", ["x", "x"], ["z"])], "then", [], output)
    other = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["z"])], "else", [], output)
    node = helper.make_node("If", ["flag"], ["y"], then_branch=then, else_branch=other)
    return model(
        [node],
        [
            helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", FLOAT, [2]),
        ],
        [helper.make_tensor_value_info("y", FLOAT, [2])],
        [numpy_helper.from_array(np.full(2, 3, np.float32), "w")],
    )


def calling(*bodies: tuple[str, list[str]]) -> onnx.ModelProto:
    """Functions over one value, each a chain of calls; the graph calls the first one.

    Args:
        bodies: name and what it calls, "Relu" being the operator.
    """
    names = [name for name, _ in bodies]
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    result = model(
        [helper.make_node(names[0], ["x"], ["y"], domain="own")],
        [helper.make_tensor_value_info("x", FLOAT, [2])],
        [helper.make_tensor_value_info("y", FLOAT, [2])],
    )
    result.opset_import.append(helper.make_opsetid("own", 1))
    for name, calls in bodies:
        values = [f"v{i}" for i in range(len(calls) + 1)]
        nodes = [
            helper.make_node(call, [values[i]], [values[i + 1]],
                             domain="own" if call in names else "")
            for i, call in enumerate(calls)
        ]  # fmt: skip
        body = helper.make_function("own", name, values[:1], values[-1:], nodes, imports)
        result.functions.append(body)
    return result


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    initializers: list[onnx.TensorProto] | None = None,
    opset: int = 18,
) -> onnx.ModelProto:
    """A model of one graph."""
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializers)
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10, producer_name="tests")


def external(path: Path, *, data: str = "model.data", lead: int = 0) -> onnx.ModelProto:
    """Write `tiny` with its initializers in a file beside it.

    Args:
        path: of the ONNX file.
        data: name of the other file.
        lead: bytes in it before the first tensor.
    """
    result, blob = tiny(), b"\0" * lead
    for tensor in result.graph.initializer:
        raw = tensor.raw_data
        place(tensor, data, offset=len(blob), length=len(raw))
        blob += raw
    (path.parent / data).write_bytes(blob)
    path.write_bytes(result.SerializeToString())
    return result


def place(tensor: onnx.TensorProto, location: str, **numbers: object) -> None:
    """Say that the values of a tensor lie in another file."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in ({"location": location} | numbers).items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)


def save(path: Path, source: onnx.ModelProto) -> Path:
    """Write a model, sound or not."""
    path.write_bytes(source.SerializeToString())
    return path


def refused(source: object) -> ModelError:
    """What the reader says to a source that it must not take."""
    with pytest.raises(ModelError) as caught:
        read_model(source)  # type: ignore[arg-type]
    return caught.value
