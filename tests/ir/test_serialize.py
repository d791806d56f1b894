"""Stages as JSON: what is written is read back."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn

from effc.diagnostics import VerifyError
from effc.ir import literals
from effc.ir.program import InputSpec, Stage
from effc.ir.serialize import stage_from_json, stage_to_json

ATEN = torch.ops.aten


class Toy(nn.Module):
    """Some of everything: sizes, several results, slices, infinities, element types."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.out = nn.Linear(8, 11)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        batch, length = ids.shape
        left, right = x.split([3, 5], dim=-1)
        x = torch.cat([right, left], dim=-1)
        x = x - x.reshape(batch * length, 8).mean(0)
        hidden = torch.full((length, length), float("-inf"), dtype=torch.float32).triu(1)
        scores = torch.softmax(x @ x.transpose(1, 2) + hidden, -1)
        return self.out(scores @ x)[:, -1:].to(torch.float16)


@pytest.fixture(scope="module")
def stage() -> Stage:
    sizes = {"ids": {0: torch.export.Dim("B"), 1: torch.export.Dim("T")}}
    ids = torch.zeros(3, 4, dtype=torch.long)
    exported = torch.export.export(Toy(), (ids,), None, dynamic_shapes=sizes)
    return _as_stage(exported)


def _as_stage(exported: torch.export.ExportedProgram) -> Stage:
    parameters = exported.graph_signature.inputs_to_parameters
    graph, made = fx.Graph(), {}
    for node in exported.graph.nodes:
        if node.target is ATEN._assert_tensor_metadata.default:  # checks of the exporter
            continue
        if node.name in parameters:
            new = graph.create_node("get_attr", parameters[node.name], name=node.name)
        else:
            new = graph.node_copy(node, made.__getitem__)
        new.meta = {"val": node.meta.get("val"), "layer": 0, "path": "toy.out"}
        made[node] = new
    return Stage("forward", graph, (InputSpec("ids", torch.int64, ("B", "T")),), ("logits",))


def test_reading_gives_back_the_graph(stage: Stage) -> None:
    read = stage_from_json(_through_text(stage_to_json(stage)), "forward.json")
    assert [_shape(node) for node in read.graph.nodes] == [_shape(n) for n in stage.graph.nodes]
    assert (read.name, read.inputs, read.outputs) == (stage.name, stage.inputs, stage.outputs)
    assert stage_to_json(read) == stage_to_json(stage)
    read.graph.lint()


def test_types_are_text_over_the_names_of_the_inputs(stage: Stage) -> None:
    read = stage_from_json(stage_to_json(stage), "forward.json")
    nodes = {node.name: node for node in read.graph.nodes}
    assert nodes["embedding"].meta["shape"] == ("B", "T", 8)
    assert nodes["embedding"].meta["dtype"] == "float32"
    assert nodes["reshape"].meta["shape"] == ("B * T", 8)
    lengths = [node for node in nodes.values() if node.target is ATEN.sym_size.int]
    assert lengths
    assert all(node.meta["dtype"] == "int" and "shape" not in node.meta for node in lengths)
    assert all("val" not in node.meta for node in read.graph.nodes)


def test_the_graph_still_computes_the_same(stage: Stage) -> None:
    module, ids = Toy(), torch.arange(10).reshape(2, 5)
    read = stage_from_json(stage_to_json(stage), "forward.json")
    result = fx.Interpreter(fx.GraphModule(module, read.graph)).run(ids)
    assert torch.equal(result[0], module(ids))


LITERALS = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
        st.sampled_from([*literals.DTYPES.values(), *literals.MEMORY_FORMATS.values()]),
        st.sampled_from([torch.device("cpu"), torch.device("cuda", 1), torch.strided]),
        st.builds(slice, *[st.none() | st.integers(-99, 99)] * 3),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple),
    max_leaves=10,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(LITERALS)
def test_literals_come_back_exactly(value: Any) -> None:
    data = _through_text(literals.write_literal(value, "x"))
    read = literals.read_literal(data, {}, "x", depth=12)
    assert repr(read) == repr(value)  # tells 1 from 1.0 and True, and lists from tuples
    assert literals.write_literal(read, "x") == literals.write_literal(value, "x")


def test_a_graph_of_unknown_operators_is_not_written() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    graph.output((graph.call_function(ATEN.add_.Tensor, (x, 1)),))
    with pytest.raises(VerifyError, match="outside the dialect"):
        stage_to_json(Stage("s", graph, (InputSpec("x", torch.float32, ("B",)),), ("y",)))


def _through_text(data: Any) -> Any:
    return json.loads(json.dumps(data, allow_nan=False))


def _shape(node: fx.Node) -> tuple[Any, ...]:
    names = fx.map_arg((node.args, node.kwargs), lambda n: f"%{n.name}")
    return node.name, node.op, node.target, repr(names), node.meta["layer"], node.meta["path"]
