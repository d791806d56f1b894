"""Stages as JSON: what is written is read back; what was tampered with is refused or read as is."""

from __future__ import annotations

import copy
import json
import math
import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn

from effc.diagnostics import ArtifactError, EffcError, VerifyError
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


def _minimal() -> dict[str, Any]:
    """x + y * 2 with a weight y."""
    return {
        "name": "s",
        "inputs": [
            {"name": "x", "dtype": "float32", "shape": ["B"], "role": "state", "optional": False}
        ],
        "outputs": ["z"],
        "nodes": [
            {"name": "x", "op": "placeholder", "target": "x", "shape": ["B"], "dtype": "float32"},
            {"name": "y", "op": "get_attr", "target": "a.b.0"},
            {
                "name": "add",
                "op": "call_function",
                "target": "aten.add.Tensor",
                "args": [{"node": "x"}, {"node": "y"}],
                "kwargs": {"alpha": 2},
                "layer": 3,
                "path": "model.layers.3",
                "kernel": "triton",
                "made_by": "fuse",
            },
            {"name": "output", "op": "output", "target": "output", "args": [{"tuple": [{"node": "add"}]}]},
        ],
    }


def test_the_minimal_stage_is_read() -> None:
    data = _minimal()
    stage = stage_from_json(data, "s.json")
    add = next(node for node in stage.graph.nodes if node.name == "add")
    assert add.target is ATEN.add.Tensor
    assert add.kwargs == {"alpha": 2}
    assert (add.meta["layer"], add.meta["kernel"]) == (3, "triton")
    assert stage_to_json(stage) == data


ADD, OUT = ("nodes", 2), ("nodes", 3)
TAMPERED: dict[str, tuple[tuple[Any, ...], Any]] = {
    "keyword as name": ((*ADD, "name"), "import"),
    "dunder as name": ((*ADD, "name"), "__builtins__"),
    "statement as name": ((*ADD, "name"), "a = 1; b"),
    "newline in name": ((*ADD, "name"), "add\n"),
    "other alphabet": ((*ADD, "name"), "аdd"),
    "builtin as name": ((*ADD, "name"), "print"),
    "name of the printer": ((*ADD, "name"), "weights"),
    "name taken": ((*ADD, "name"), "x"),
    "input and node disagree": (("nodes", 0, "name"), "w"),
    "unknown kind": ((*ADD, "op"), "call_method"),
    "module call": ((*ADD, "op"), "call_module"),
    "forbidden operator": ((*ADD, "target"), "aten.from_file.default"),
    "mutating operator": ((*ADD, "target"), "aten.add_.Tensor"),
    "python function": ((*ADD, "target"), "builtins.exec"),
    "number as target": ((*ADD, "target"), 7),
    "later node": ((*ADD, "args"), [{"node": "output"}, {"node": "y"}]),
    "itself": ((*ADD, "args"), [{"node": "add"}, {"node": "y"}]),
    "two kinds": ((*ADD, "args"), [{"node": "x", "text": "x"}, 1]),
    "unknown literal": ((*ADD, "args"), [{"pickle": "gASV"}, 1]),
    "arguments as object": ((*ADD, "args"), {"node": "x"}),
    "too many arguments": ((*ADD, "args"), [{"node": "x"}] * 4),
    "too few arguments": ((*ADD, "args"), [{"node": "x"}]),
    "unknown keyword": ((*ADD, "kwargs"), {"out": {"node": "x"}}),
    "keyword given twice": ((*ADD, "kwargs"), {"self": {"node": "x"}}),
    "empty keywords": ((*ADD, "kwargs"), {}),
    "huge number": ((*ADD, "kwargs"), {"alpha": 2**63}),
    "infinite number": ((*ADD, "kwargs"), {"alpha": math.inf}),
    "deep list": ((*ADD, "kwargs"), {"alpha": [[[[[[[[[[1]]]]]]]]]]}),
    "unknown field": ((*ADD, "code"), "print(1)"),
    "truth as layer": ((*ADD, "layer"), True),
    "negative layer": ((*ADD, "layer"), -1),
    "newline in path": ((*ADD, "path"), "a\nimport os"),
    "kernel with a dot": ((*ADD, "kernel"), "os.system"),
    "unknown element type": ((*ADD, "dtype"), "float7"),
    "bad size": ((*ADD, "shape"), ["__import__('os')"]),
    "size in another form": ((*ADD, "shape"), ["B+1"]),
    "negative size": ((*ADD, "shape"), [-1]),
    "weight with a dunder": (("nodes", 1, "target"), "a.__class__"),
    "weight with a quote": (("nodes", 1, "target"), "a'b"),
    "output is no tuple": ((*OUT, "args"), [{"node": "add"}]),
    "output of a number": ((*OUT, "args"), [{"tuple": [1]}]),
    "output too long": ((*OUT, "args"), [{"tuple": [{"node": "add"}, {"node": "x"}]}]),
    "no output": (("nodes",), []),
    "stage name": (("name",), "def"),
    "no inputs": (("inputs",), []),
    "unknown role": (("inputs", 0, "role"), "secret"),
    "input of unknown type": (("inputs", 0, "dtype"), "object"),
    "nodes as object": (("nodes",), {"0": {}}),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_a_tampered_stage_is_refused(case: str) -> None:
    path, value = TAMPERED[case]
    data = _minimal()
    _set(data, path, value)
    with pytest.raises(ArtifactError) as caught:
        stage_from_json(data, "stages/s.json")
    assert caught.value.code in ("E0603", "E0604")
    assert str(caught.value.where).startswith("stages/s.json")


def test_arithmetic_takes_no_texts() -> None:
    data = _minimal()
    data["nodes"][2] = {
        "name": "mul",
        "op": "call_function",
        "target": "operator.mul",
        "args": [{"text": "x"}, 10**12],
    }
    with pytest.raises(ArtifactError, match="nodes and numbers"):
        stage_from_json(data, "s.json")


FOREIGN: tuple[Any, ...] = (
    *(None, True, -1, 0, 3, 2**70, 1.5, math.inf, "", "x", "add", "output", "__class__", "B"),
    *("aten.mul.Tensor", "aten.split.Tensor", "operator.getitem", "a b", "\n", "\ud800"),
    *([], {}, [[]], {"node": "x"}, {"node": []}, {"text": "x"}, {"tuple": [1]}, {"float": "nan"}),
    *({"slice": [0]}, {"slice": [None, "x", 1]}, {"dtype": 3}, {"device": "meta"}),
)


@pytest.mark.parametrize("seed", range(8))
def test_mutations_are_refused_or_read_as_they_are(stage: Stage, seed: int) -> None:
    draw = random.Random(seed)
    originals = (_minimal(), stage_to_json(stage))
    harmless = 0
    for _ in range(150):
        data = copy.deepcopy(draw.choice(originals))
        for _ in range(draw.randint(1, 3)):
            _mutate(data, draw)
        try:
            read = stage_from_json(data, "s.json")
        except EffcError:
            continue
        assert _canonical(stage_to_json(read)) == _canonical(data)
        harmless += 1
    assert 0 < harmless < 100


def _mutate(data: Any, draw: random.Random) -> None:
    """Replace, delete, duplicate or rename one random thing."""
    places = list(_places(data))
    container, key = draw.choice(places)
    match draw.choice(("replace", "replace", "delete", "copy", "rename")):
        case "replace":
            container[key] = copy.deepcopy(draw.choice(FOREIGN))
        case "delete":
            del container[key]
        case "copy":
            other, other_key = draw.choice(places)
            container[key] = copy.deepcopy(other[other_key])
        case "rename" if isinstance(container, dict):
            container[draw.choice(["name", "op", "args", "self", "x", "__init__"])] = container[key]


def _places(data: Any) -> list[tuple[Any, Any]]:
    keys = list(data) if isinstance(data, dict) else range(len(data))
    found: list[tuple[Any, Any]] = []
    for key in keys:
        found.append((data, key))
        if isinstance(data[key], dict | list):
            found += _places(data[key])
    return found


def _set(data: Any, path: tuple[Any, ...], value: Any) -> None:
    for key in path[:-1]:
        data = data[key]
    data[path[-1]] = value


def _through_text(data: Any) -> Any:
    return json.loads(json.dumps(data, allow_nan=False))


def _canonical(data: Any) -> str:
    return json.dumps(data, sort_keys=True)


def _shape(node: fx.Node) -> tuple[Any, ...]:
    names = fx.map_arg((node.args, node.kwargs), lambda n: f"%{n.name}")
    return node.name, node.op, node.target, repr(names), node.meta["layer"], node.meta["path"]
