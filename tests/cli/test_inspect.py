"""`effc inspect` of ONNX files: what stands in them, who made them, what can be done with them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from effc.cli import main
from effc.frontend.onnx.origin import origin
from effc.frontend.onnx.reader import read_model
from effc.frontend.onnx.summary import summarize
from tests.frontend.onnx.files import FLOAT, branches, calling, external, model, save, tiny


def inspected(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["inspect", str(path), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_file_is_described_in_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "model.onnx", tiny())
    assert main(["inspect", str(path)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "verdict: compiles as a function"
    for line in (
        "exporter: unknown (the producer is 'tests')", "format: IR version 10",
        "opsets: ai.onnx 18", "parameters: 15", "size: 60 B", "x float32 [N, 4]",
        "y float32 [N, 3]", "float32 2 15 60 B", "MatMul ai.onnx 1 direct",
        "cache: none among inputs and outputs",
    ):  # fmt: skip
        assert line in lines, lines


def test_counts_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    proto = external(path, lead=8)
    facts = summarize(read_model(path))
    expected = Counter((node.domain, node.op_type) for node in proto.graph.node)
    assert {(op["domain"], op["name"]): op["count"] for op in facts["operators"]} == expected
    assert facts["external"] == [{"file": "model.data", "tensors": 2, "bytes": 60}]
    assert (facts["parameters"], facts["bytes"]) == (15, 60)


def test_operators_of_branches_and_functions_are_counted() -> None:
    facts = summarize(read_model(branches()))
    assert {op["name"] for op in facts["operators"]} == {"If", "Add", "Mul"}
    facts = summarize(read_model(calling(("f", ["g", "Relu"]), ("g", ["Relu"]))))
    support = {op["name"]: (op["support"], op["count"]) for op in facts["operators"]}
    own = "own function"
    assert support == {"f": (own, 1), "g": (own, 1), "Relu": ("direct", 2)}


def test_what_cannot_be_translated_comes_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tiny()
    source.opset_import.append(helper.make_opsetid("acme", 1))
    source.graph.node[1].domain, source.graph.node[1].op_type = "acme", "Shift"
    facts = inspected(save(tmp_path / "model.onnx", source), capsys)
    reason = "1 operator is not supported: Shift ('acme', 1 nodes)"
    assert facts["verdict"] == f"cannot be compiled: {reason}" and facts["sites"] == []
    assert facts["file"]["operators"][0]["support"] == "unsupported"


def test_packed_types_count_their_bits() -> None:
    source = tiny()
    packed = TensorProto(name="p", dims=[5], data_type=TensorProto.INT4, raw_data=bytes(3))
    source.graph.initializer.append(packed)
    rows = {row["type"]: row for row in summarize(read_model(source))["elements"]}
    assert rows["int4"] == {"type": "int4", "tensors": 1, "parameters": 5, "bytes": 3}


def test_quantized_operators_are_named_with_their_bits() -> None:
    weights = [
        numpy_helper.from_array(np.zeros((3, 1, 16), np.uint8), "q"),
        numpy_helper.from_array(np.ones((3, 1), np.float32), "scales"),
    ]
    node = helper.make_node("MatMulNBits", ["x", "q", "scales"], ["y"], domain="com.microsoft",
                            K=32, N=3, bits=4, block_size=32)  # fmt: skip
    quantize = helper.make_node("QuantizeLinear", ["y", "s"], ["z"])
    weights.append(numpy_helper.from_array(np.array(0.5, np.float32), "s"))
    source = model(
        [node, quantize],
        [helper.make_tensor_value_info("x", FLOAT, ["N", 32])],
        [helper.make_tensor_value_info("z", TensorProto.UINT8, ["N", 3])],
        weights,
    )
    source.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    found = summarize(read_model(source))["quantization"]
    packed = {"kind": "MatMulNBits", "bits": 4, "block_size": 32, "accuracy_level": None}
    blank = {"bits": None, "block_size": None, "accuracy_level": None}
    assert found == [packed | {"nodes": 1}, {"kind": "QDQ"} | blank | {"nodes": 1}]


@pytest.mark.parametrize(
    ("producer", "node", "key", "exporter"),
    (
        ("pytorch", "node_add", "pkg.torch.onnx.fx_node", "torch.onnx, dynamo"),
        ("pytorch", "/model/layers.0/Add", "", "torch.onnx, TorchScript"),
        ("onnxruntime-genai", "/model/Add", "", "onnxruntime-genai model builder"),
        ("tf2onnx", "Add", "", "tf2onnx"),
        ("PaddlePaddle", "Add", "", "Paddle2ONNX"),
        ("", "Add", "", "unknown"),
    ),
)
def test_the_exporter_is_known_by_its_signs(
    producer: str, node: str, key: str, exporter: str
) -> None:
    source = tiny()
    source.producer_name = producer
    source.graph.node[0].name = node
    if key:
        source.graph.node[0].metadata_props.add(key=key, value="...")
    found = origin(onnx_ir.from_proto(source))
    assert found.exporter == exporter
    assert (repr(producer) if producer else "no producer") in found.sign


def test_a_cache_is_seen_by_its_names(tmp_path: Path) -> None:
    shape = ["B", 2, "S", 8]
    names = [f"past_key_values.{i}.{part}" for i in range(2) for part in ("key", "value")]
    present = [name.replace("past_key_values", "present") for name in names]
    source = model(
        [helper.make_node("Identity", [a], [b]) for a, b in zip(names, present, strict=True)],
        [helper.make_tensor_value_info(name, FLOAT, shape) for name in names],
        [helper.make_tensor_value_info(name, FLOAT, shape) for name in present],
    )
    assert summarize(read_model(source))["cache"] == {"past": names, "present": present}
    assert summarize(read_model(tiny()))["cache"] is None


def test_old_files_list_their_weights_among_the_inputs() -> None:
    source = tiny()
    source.ir_version = 3
    for tensor in source.graph.initializer:
        value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        source.graph.input.append(value)
    facts = summarize(read_model(source))
    assert [value["name"] for value in facts["inputs"]] == ["x"] and facts["parameters"] == 15


@pytest.mark.parametrize(
    "path", sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("*.onnx"))
)
def test_every_published_model_is_described(path: Path) -> None:
    facts = summarize(read_model(path))
    assert facts["operators"] and json.dumps(facts)
