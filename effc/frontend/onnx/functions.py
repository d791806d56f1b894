"""Operators that are defined by other operators: the function bodies of the ONNX standard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import onnx_ir


def has_body(domain: str, op_type: str, version: int) -> bool:
    """Whether the standard defines an operator by others."""
    schema = _schema(domain, op_type, version)
    if schema is None:
        return False
    return schema.has_function or schema.has_context_dependent_function


def body(
    node: onnx_ir.Node,
    version: int,
    types: Sequence[onnx.TypeProto | None],
    attributes: Mapping[str, onnx_ir.Attr],
) -> onnx_ir.Function | None:
    """The function that a node stands for.

    Args:
        node: of an operator without a translation.
        version: of its domain, in the model.
        types: of its inputs, as far as known; some bodies depend on them.
        attributes: of the node, those of an enclosing function looked up.

    Returns:
        None when the standard has no body that fits.
    """
    domain = "" if node.domain == "ai.onnx" else node.domain
    schema = _schema(domain, node.op_type, version)
    if schema is None:
        return None
    text = _fixed_body(schema, version) or _made_body(schema, node, version, types, attributes)
    return None if text is None else _read(text, schema)


def _schema(domain: str, op_type: str, version: int) -> Any:
    try:
        return onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return None


def _fixed_body(schema: Any, version: int) -> bytes | None:
    if not schema.has_function:
        return None
    versions = [v for v in schema.function_opset_versions if v <= version]
    chosen = max(versions, default=min(schema.function_opset_versions))
    return schema.get_function_with_opset_version(chosen)


def _made_body(
    schema: Any,
    node: onnx_ir.Node,
    version: int,
    types: Sequence[onnx.TypeProto | None],
    attributes: Mapping[str, onnx_ir.Attr],
) -> bytes | None:
    if not schema.has_context_dependent_function:
        return None
    known = [b"" if t is None else t.SerializeToString() for t in types]
    if any(t is None and v is not None for t, v in zip(types, node.inputs, strict=True)):
        return None
    proto = onnx_ir.serde.serialize_node(node)
    del proto.attribute[:]
    for name, attribute in attributes.items():
        found = onnx_ir.serde.serialize_attribute(attribute)
        found.name = name
        proto.attribute.append(found)
    text = proto.SerializeToString()
    allowed = schema.context_dependent_function_opset_versions
    versions = [v for v in allowed if v <= version]
    chosen = max(versions, default=min(allowed))
    return schema.get_context_dependent_function_with_opset_version(chosen, text, known)


def _read(text: bytes, schema: Any) -> onnx_ir.Function | None:
    """A function whose attributes default to what the schema says."""
    proto = onnx.FunctionProto()
    proto.ParseFromString(text)
    for name in list(proto.attribute):
        default = schema.attributes[name].default_value
        if default.name:
            proto.attribute.remove(name)
            proto.attribute_proto.append(default)
    written = {name for node in proto.node for name in node.output}
    for name in proto.output:
        if name not in written:
            # The node does not want this output; the absent value stands for it.
            proto.node.append(onnx.helper.make_node("Identity", [""], [name]))
    return onnx_ir.serde.deserialize_function(proto) if proto.node else None
