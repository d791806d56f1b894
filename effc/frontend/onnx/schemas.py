"""Nodes against the definitions of their operators: arguments that exist, with the right types.

Only what the installed onnx defines is checked; other domains are the translation's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import onnx
from onnx import AttributeProto

from effc.diagnostics import did_you_mean
from effc.frontend.onnx.damage import damaged, text
from effc.frontend.onnx.table import plain_domain
from effc.frontend.onnx.views import node_label

_FIELD_OF = {
    AttributeProto.FLOAT: "f",
    AttributeProto.INT: "i",
    AttributeProto.STRING: "s",
    AttributeProto.TENSOR: "t",
    AttributeProto.GRAPH: "g",
    AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    AttributeProto.TYPE_PROTO: "tp",
    AttributeProto.FLOATS: "floats",
    AttributeProto.INTS: "ints",
    AttributeProto.STRINGS: "strings",
    AttributeProto.TENSORS: "tensors",
    AttributeProto.GRAPHS: "graphs",
    AttributeProto.SPARSE_TENSORS: "sparse_tensors",
    AttributeProto.TYPE_PROTOS: "type_protos",
}
# Definitions number the types as files do, in an enumeration of their own.
_TYPES = {
    getattr(onnx.defs.OpSchema.AttrType, name): number
    for name, number in AttributeProto.AttributeType.items()
    if number in _FIELD_OF
}
_MESSAGES = ("t", "g", "sparse_tensor", "tp")
_BESIDE = ("name", "type", "doc_string", "ref_attr_name")


@dataclass(frozen=True)
class _Signature:
    """What a definition says about the arguments of a node."""

    inputs: range
    outputs: range
    required_inputs: tuple[int, ...]
    attributes: Mapping[str, int]
    required: frozenset[str]


def check_nodes(body: Any, opsets: Mapping[str, int], place: str) -> None:
    """Check the nodes of a `GraphProto` or `FunctionProto`, those of inner graphs included.

    Args:
        body: whose names are known to be text.
        opsets: domain -> version.
        place: for messages.

    Raises:
        ModelError: E0310 names node and argument.
    """
    for i, node in enumerate(body.node):
        label = node_label(node, i)
        for attribute in node.attribute:
            _check_attribute(attribute, label, place)
        domain = plain_domain(node.domain)
        signature = _signature(node.op_type, domain, opsets.get(domain, 0))
        if signature is not None:
            _check_count(len(node.input), signature.inputs, "inputs", label, place)
            _check_count(len(node.output), signature.outputs, "outputs", label, place)
            for k in signature.required_inputs:
                if k < len(node.input) and not node.input[k]:
                    raise damaged(place, f"{label} lacks its input {k}, which is not optional")
            _check_attributes(node, signature, label, place)
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                check_nodes(graph, opsets, place)


def _check_attribute(attribute: AttributeProto, label: str, place: str) -> None:
    """The value must be of the type that the attribute says it has, or it would be lost."""
    text(attribute.name, f"the name of an attribute of {label}", place)
    what = f"attribute {attribute.name!r} of {label}"
    if attribute.ref_attr_name:
        return
    field = _FIELD_OF.get(attribute.type)
    if field is None:
        raise damaged(place, f"{what} has no type")
    found = [entry.name for entry, _ in attribute.ListFields() if entry.name not in _BESIDE]
    wrong = [name for name in found if name != field]
    if wrong:
        types = {name: _type_name(number) for number, name in _FIELD_OF.items()}
        holds = types.get(wrong[0], wrong[0])
        raise damaged(place, f"{what} is of type {types[field]}, but holds {holds}")
    if field in _MESSAGES and not found:
        raise damaged(place, f"{what} has no value")


def _check_attributes(node: Any, signature: _Signature, label: str, place: str) -> None:
    for attribute in node.attribute:
        name = attribute.name
        if name.startswith("__"):  # internal to whoever wrote it, by convention
            continue
        if name not in signature.attributes:
            help = "remove it: the operator takes none"
            if signature.attributes:
                help = did_you_mean(name, signature.attributes)
            raise damaged(place, f"{label} has no attribute {name!r}", help)
        allowed = signature.attributes[name]
        if attribute.type != allowed and not attribute.ref_attr_name:
            types = f"{_type_name(allowed)}, found {_type_name(attribute.type)}"
            raise damaged(place, f"attribute {name!r} of {label} must be {types}")
        for value in (attribute.s, *attribute.strings):
            if value.decode("utf-8", "replace").encode("utf-8", "replace") != value:
                raise damaged(place, f"attribute {name!r} of {label} is not UTF-8 text")
    names = [attribute.name for attribute in node.attribute]
    missing = signature.required - set(names)
    if missing:
        raise damaged(place, f"{label} lacks the attribute {min(missing)!r}")
    if len(set(names)) < len(names):
        raise damaged(place, f"{label} has an attribute twice: {', '.join(names)}")


def _type_name(number: int) -> str:
    return AttributeProto.AttributeType.Name(number)


def _check_count(count: int, allowed: range, what: str, label: str, place: str) -> None:
    if count not in allowed:
        most = allowed.stop - 1
        limits = str(most) if len(allowed) == 1 else f"{allowed.start} to {most}"
        if count < allowed.start < most:
            limits = f"at least {allowed.start}"
        raise damaged(place, f"{label} has {count} {what}; the operator takes {limits}")


@cache
def _signature(op_type: str, domain: str, version: int) -> _Signature | None:
    """None for what onnx does not define, or does not define any more."""
    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return None
    if schema.deprecated:
        return None
    single = onnx.defs.OpSchema.FormalParameterOption.Single
    return _Signature(
        range(schema.min_input, schema.max_input + 1),
        range(schema.min_output, schema.max_output + 1),
        tuple(i for i, parameter in enumerate(schema.inputs) if parameter.option == single),
        {name: _TYPES[entry.type] for name, entry in schema.attributes.items()},
        frozenset(name for name, entry in schema.attributes.items() if entry.required),
    )
