"""Stages as JSON, our own graph format.

One object per node: name, kind, target and arguments, then what is known about it. Operators are
looked up in `effc.ir.opset`, arguments are literals (`effc.ir.literals`), sizes are text in a small
grammar (`effc.ir.sizes`), weights are names. Absent facts are absent fields, so every stage has
one form, and reading accepts no other: a file is treated as hostile until it has been read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from effc.diagnostics import VerifyError
from effc.ir import literals, opset, sizes, untrusted
from effc.ir.program import InputSpec, Stage
from effc.ir.stage_calls import misfit
from effc.ir.types import SYMBOLIC, symbol_names

ROLES = ("argument", "state")
KINDS = ("sequence", "size")
"""Inputs of other kinds than tensors."""
_KINDS = ("placeholder", "get_attr", "call_function", "output")
_FACTS = ("layer", "path", "kernel", "made_by", "shape", "dtype")


def stage_to_json(stage: Stage) -> dict[str, object]:
    """A stage as JSON-ready data.

    Raises:
        VerifyError: E0406 when the graph holds what the format cannot express.
    """
    names = symbol_names(stage)
    return {
        "name": stage.name,
        "inputs": [input_to_json(spec) for spec in stage.inputs],
        "outputs": list(stage.outputs),
        "nodes": [_node_to_json(node, names, stage.name) for node in stage.graph.nodes],
    }


def input_to_json(spec: InputSpec) -> dict[str, object]:
    """An input as JSON-ready data."""
    entry: dict[str, object] = {
        "name": spec.name,
        "dtype": literals.dtype_name(spec.dtype),
        "shape": [s if isinstance(s, int) else sizes.canonical(s) for s in spec.shape],
        "role": spec.role,
        "optional": spec.optional,
    }
    return entry if spec.kind == "tensor" else entry | {"kind": spec.kind}


def input_from_json(data: object, where: str) -> InputSpec:
    """The input that `input_to_json` described.

    Raises:
        ArtifactError: E0603 for anything else.
    """
    required = ("name", "dtype", "shape", "role", "optional")
    entry = untrusted.fields(data, where, required, ("kind",))
    kind = untrusted.choice(entry["kind"], f"{where}.kind", KINDS) if "kind" in entry else "tensor"
    return InputSpec(
        name=untrusted.identifier(entry["name"], f"{where}.name"),
        dtype=literals.read_dtype(entry["dtype"], f"{where}.dtype"),
        shape=read_shape(entry["shape"], f"{where}.shape"),
        role=untrusted.choice(entry["role"], f"{where}.role", ROLES),
        optional=untrusted.boolean(entry["optional"], f"{where}.optional"),
        kind=kind,
    )


def read_shape(data: object, where: str) -> tuple[int | str, ...]:
    """A shape whose sizes are whole numbers or canonical expressions."""
    return tuple(_read_size(size, where) for size in untrusted.array(data, where))


def _read_size(data: object, where: str) -> int | str:
    if type(data) is int:
        return untrusted.integer(data, where, low=0)
    text = untrusted.text(data, where)
    if text != sizes.UNKNOWN and sizes.canonical(text, where) != text:
        untrusted.damaged(f"the size {text!r} is not in canonical form", where)
    return text


def _node_to_json(node: fx.Node, names: Mapping[str, str], stage: str) -> dict[str, object]:
    where = f"{stage}.{node.name}"
    entry: dict[str, object] = {"name": node.name, "op": node.op, "target": _target(node, where)}
    if node.args:
        entry["args"] = [literals.write_literal(arg, where) for arg in node.args]
    if node.kwargs:
        items = node.kwargs.items()
        entry["kwargs"] = {name: literals.write_literal(value, where) for name, value in items}
    facts = {key: node.meta.get(key) for key in _FACTS} | _type_facts(node, names)
    return entry | {k: value for k, value in facts.items() if value is not None and value != ""}


def _target(node: fx.Node, where: str) -> str:
    if node.op != "call_function":
        return str(node.target)
    name = opset.name_of(node.target)
    if name is None:
        raise VerifyError("E0406", f"operator {node.target} is outside the dialect", where=where)
    return name


def _type_facts(node: fx.Node, names: Mapping[str, str]) -> dict[str, object]:
    """Shape and element type; tuples have none, the nodes that take them apart do."""
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor):
        shape = [sizes.of_value(size, names) for size in value.shape]
        return {"shape": shape, "dtype": literals.dtype_name(value.dtype)}
    if type(value) in SYMBOLIC:
        return {"dtype": SYMBOLIC[type(value)]}
    shape, dtype = node.meta.get("shape"), node.meta.get("dtype")
    return {"shape": None if shape is None else list(shape), "dtype": dtype}


def stage_from_json(data: object, where: str) -> Stage:
    """The stage that `stage_to_json` described.

    The nodes carry no fake values (`meta["val"]`); `meta["shape"]` and `meta["dtype"]` say as text
    what is known.

    Args:
        data: the parsed JSON.
        where: the file, for messages.

    Raises:
        ArtifactError: E0603 for anything that `stage_to_json` does not write, E0604 for an
            operator outside the allow-list.
    """
    entry = untrusted.fields(data, where, ("name", "inputs", "outputs", "nodes"))
    inputs = untrusted.array(entry["inputs"], f"{where}: inputs")
    outputs = untrusted.array(entry["outputs"], f"{where}: outputs")
    reader = _GraphReader(where)
    for index, node in enumerate(untrusted.array(entry["nodes"], f"{where}: nodes")):
        reader.add(node, f"{where}: nodes[{index}]")
    stage = Stage(
        name=untrusted.identifier(entry["name"], f"{where}: name"),
        graph=reader.graph,
        inputs=tuple(
            input_from_json(spec, f"{where}: inputs[{i}]") for i, spec in enumerate(inputs)
        ),
        outputs=tuple(untrusted.weight_name(name, f"{where}: outputs") for name in outputs),
    )
    _check_signature(stage, where)
    return stage


class _GraphReader:
    """Builds one graph node by node; a node may refer to earlier ones only."""

    def __init__(self, where: str) -> None:
        self.graph = fx.Graph()
        self.nodes: dict[str, fx.Node] = {}
        self.where = where

    def add(self, data: object, where: str) -> None:
        """Append the node that `data` describes."""
        entry = untrusted.fields(data, where, ("name", "op", "target"), ("args", "kwargs", *_FACTS))
        name = untrusted.identifier(entry["name"], f"{where}.name")
        kind = untrusted.choice(entry["op"], f"{where}.op", _KINDS)
        target = self._target(kind, entry["target"], name, f"{where} ({name})")
        args, kwargs = self._arguments(entry, f"{where} ({name})")
        if self._last_kind() == "output":
            untrusted.damaged("a node follows the output", where)
        _check_call(kind, target, args, kwargs, f"{where} ({name})")
        node = self.graph.create_node(kind, target, args, kwargs, name=name)
        if node.name != name:
            untrusted.damaged(f"the name {name!r} is taken or reserved", where)
        node.meta.update(_read_facts(entry, f"{where} ({name})"))
        self.nodes[name] = node

    def _last_kind(self) -> str | None:
        return next((node.op for node in reversed(self.graph.nodes)), None)

    def _target(self, kind: str, data: object, name: str, where: str) -> Any:
        if kind == "call_function":
            return opset.lookup(untrusted.text(data, where), where)
        if kind == "get_attr":
            return untrusted.weight_name(data, where)
        expected = name if kind == "placeholder" else "output"
        return untrusted.choice(data, where, (expected,))

    def _arguments(
        self, entry: Mapping[str, object], where: str
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        if "args" in entry:
            args = literals.read_literal(_filled(entry["args"], where), self.nodes, where)
        if "kwargs" in entry:
            for key, value in untrusted.mapping(_filled(entry["kwargs"], where), where).items():
                kwargs[untrusted.identifier(key, where)] = literals.read_literal(
                    value, self.nodes, where
                )
        return tuple(untrusted.array(args, where)), kwargs


def _filled(data: object, where: str) -> object:
    """Absent arguments are absent fields, so that a stage has one form."""
    if not data:
        untrusted.damaged("an empty list of arguments must be left out", where)
    return data


def _check_call(
    kind: str, target: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], where: str
) -> None:
    if kind in ("placeholder", "get_attr") and (args or kwargs):
        untrusted.damaged(f"a {kind} takes no arguments", where)
    if kind == "output" and (len(args) != 1 or not isinstance(args[0], tuple) or kwargs):
        untrusted.damaged("the output must be one flat tuple", where)
    if kind != "call_function":
        return
    if problem := misfit(target, args, kwargs):
        untrusted.damaged(problem, where)
    if isinstance(target, torch._ops.OpOverload):
        _check_schema(target, args, kwargs, where)
    elif not isinstance(target, torch._ops.HigherOrderOperator) and (
        kwargs or not all(isinstance(arg, _SIZE_LIKE) for arg in args)
    ):
        untrusted.damaged("arithmetic takes nodes and numbers only", where)


# What arithmetic on sizes may be applied to; a slice only ever reaches `operator.getitem`, and
# None is what optional inputs are compared with.
_SIZE_LIKE = (fx.Node, bool, int, float, list, slice, type(None))


def _check_schema(
    target: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any], where: str
) -> None:
    """Arguments must fit the operator's schema by number and name."""
    positional = [a.name for a in target._schema.arguments if not a.kwarg_only]
    given = set(positional[: len(args)])
    known = {a.name for a in target._schema.arguments}
    required = {a.name for a in target._schema.arguments if not a.has_default_value()}
    wrong = len(args) > len(positional) or given & kwargs.keys() or kwargs.keys() - known
    if wrong or required - given - kwargs.keys():
        untrusted.damaged(f"the arguments do not fit {target._schema}", where)


def _read_facts(entry: Mapping[str, object], where: str) -> dict[str, object]:
    facts: dict[str, object] = {}
    if "layer" in entry:
        facts["layer"] = untrusted.integer(entry["layer"], where, low=0, high=100_000)
    for key in ("path", "made_by"):
        if key in entry:
            facts[key] = _filled(untrusted.text(entry[key], where), where)
    if "kernel" in entry:
        facts["kernel"] = untrusted.kernel_name(entry["kernel"], where)
    if "shape" in entry:
        facts["shape"] = read_shape(entry["shape"], where)
    if "dtype" in entry:
        allowed = (*literals.DTYPES, *SYMBOLIC.values())
        facts["dtype"] = untrusted.choice(entry["dtype"], where, allowed)
    return facts


def _check_signature(stage: Stage, where: str) -> None:
    nodes = list(stage.graph.nodes)
    placeholders = sorted(node.name for node in nodes if node.op == "placeholder")
    if placeholders != sorted(spec.name for spec in stage.inputs):
        untrusted.damaged("the placeholders are not the inputs", where)
    if not nodes or nodes[-1].op != "output":
        untrusted.damaged("the graph has no output", where)
    results = nodes[-1].args[0]
    if len(results) != len(stage.outputs) or len(set(stage.outputs)) != len(results):
        untrusted.damaged("the output does not fit the names of the results", where)
    if not all(_is_result(result) for result in results):
        untrusted.damaged("a result must be a node, a list of nodes or nothing", where)


def _is_result(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, fx.Node) for item in value)
    return value is None or isinstance(value, fx.Node)
