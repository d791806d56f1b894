"""Stages from strangers: what was tampered with is refused, or read exactly as it stands."""

from __future__ import annotations

import copy
import json
import math
import random
from typing import Any

import pytest
import torch

from effc.diagnostics import ArtifactError, EffcError
from effc.ir.serialize import stage_from_json, stage_to_json


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
            {
                "name": "output",
                "op": "output",
                "target": "output",
                "args": [{"tuple": [{"node": "add"}]}],
            },
        ],
    }


def _rich() -> dict[str, Any]:
    """The minimal stage with several results, arithmetic and every kind of literal in front."""
    data = _minimal()
    calls: list[tuple[str, str, list[Any], dict[str, Any]]] = [
        ("size", "aten.sym_size.int", [{"node": "x"}, 0], {}),
        ("double", "operator.mul", [{"node": "size"}, 2], {}),
        ("parts", "aten.split.Tensor", [{"node": "x"}, 3], {}),
        ("first", "operator.getitem", [{"node": "parts"}, 0], {}),
        ("rows", "operator.getitem", [{"node": "x"}, {"slice": [0, None, {"node": "size"}]}], {}),
        ("bound", "aten.clamp.default", [{"node": "first"}, {"float": "-inf"}, 0.5], {}),
        ("joined", "aten.cat.default", [[{"node": "bound"}, {"node": "rows"}]], {}),
        (
            "blank",
            "aten.full.default",
            [[{"node": "double"}, 3], 1.0],
            {"dtype": {"dtype": "int64"}},
        ),
        ("gelu", "aten.gelu.default", [{"node": "joined"}], {"approximate": {"text": "tanh"}}),
        (
            "there",
            "aten.to.device",
            [{"node": "gelu"}, {"device": "cpu"}, {"dtype": "float16"}],
            {},
        ),
    ]
    nodes = [
        {"name": name, "op": "call_function", "target": target, "args": args}
        | ({"kwargs": kwargs} if kwargs else {})
        for name, target, args, kwargs in calls
    ]
    data["nodes"][2:2] = nodes
    return data


def test_the_rich_stage_is_read() -> None:
    assert stage_to_json(stage_from_json(_rich(), "s.json")) == _rich()


def test_the_minimal_stage_is_read() -> None:
    data = _minimal()
    stage = stage_from_json(data, "s.json")
    add = next(node for node in stage.graph.nodes if node.name == "add")
    assert add.target is torch.ops.aten.add.Tensor
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
def test_mutations_are_refused_or_read_as_they_are(seed: int) -> None:
    draw = random.Random(seed)
    originals = (_minimal(), _rich())
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


def _canonical(data: Any) -> str:
    return json.dumps(data, sort_keys=True)
