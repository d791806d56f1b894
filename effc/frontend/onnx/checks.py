"""All checks of a model, in the order in which one may rely on another.

Names are text, versions are known, nodes fit their operators, tensors are as long as their shapes
say, every value has a source, and external data lies where it may.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import onnx_ir

from effc.frontend.onnx import schemas, versions
from effc.frontend.onnx.damage import damaged, text
from effc.frontend.onnx.external import Extent, check_external
from effc.frontend.onnx.structure import FunctionKey, check_structure
from effc.frontend.onnx.table import plain_domain
from effc.frontend.onnx.tensors import byte_count, check_tensors, check_types
from effc.frontend.onnx.views import view_model, view_proto


def check_file(model: onnx.ModelProto, folder: Path | None, place: str) -> None:
    """Check a model as it came from a file, and sort its nodes where they are out of order.

    Args:
        model: parsed.
        folder: where external data may lie, None for nowhere.
        place: for messages.

    Raises:
        ModelError: E0302, E0310, E0311.
    """
    if not model.HasField("graph"):
        raise damaged(place, "the file holds no graph: it is cut off, or no ONNX model")
    versions.check_format(model.ir_version, place)
    graph = view_proto(model.graph, "the graph", place)
    check_types(model, place)
    bodies = _functions(model, place)
    views = {key: view_proto(body, _label(key), place) for key, body in bodies.items()}
    for owner, body, view in (
        (model, model.graph, graph),
        *((bodies[key], bodies[key], view) for key, view in views.items()),
    ):
        opsets = versions.read_opsets(owner.opset_import, place)
        versions.check_opsets(opsets, view, bodies, place)
        schemas.check_nodes(body, opsets, place)
    extents = check_tensors(model, place)
    check_structure(graph, views, place)
    check_external(extents, folder, place)


def _functions(model: onnx.ModelProto, place: str) -> dict[FunctionKey, Any]:
    """The functions that a file defines."""
    found: dict[FunctionKey, Any] = {}
    for body in model.functions:
        domain, name, overload = (
            text(part, "the name of a function", place)
            for part in (body.domain, body.name, getattr(body, "overload", ""))
        )
        key = plain_domain(domain), name, overload
        if key in found:
            raise damaged(place, f"{_label(key)} of the domain {domain!r} is defined twice")
        found[key] = body
    return found


def _label(key: FunctionKey) -> str:
    return f"the function {key[1]!r}"


def check_objects(model: onnx_ir.Model, place: str) -> None:
    """Check a model that a program has built; its objects cannot lie about names or lengths.

    Args:
        model: its nodes are sorted where they are out of order; external tensors without a base
            directory get the current one.
        place: for messages.

    Raises:
        ModelError: E0302, E0310, E0311.
    """
    versions.check_format(model.ir_version, place)
    untyped = [value.name or "?" for value in model.graph.inputs if value.type is None]
    if untyped:
        raise damaged(place, f"inputs of the graph have no type: {', '.join(untyped)}")
    graph = view_model(model.graph, "the graph", place)
    bodies = {key: function.graph for key, function in model.functions.items()}
    views = {key: view_model(body, _label(key), place) for key, body in bodies.items()}
    for imports, view in (
        (model.opset_imports, graph),
        *((bodies[key].opset_imports, view) for key, view in views.items()),
    ):
        opsets = {plain_domain(domain): version for domain, version in imports.items()}
        versions.check_opsets(opsets, view, views, place)
    check_structure(graph, views, place)
    for body in (model.graph, *bodies.values()):
        for tensor in external_tensors(body):
            tensor.base_dir = tensor.base_dir or str(Path.cwd())
            check_external([_extent(tensor)], Path(tensor.base_dir), place)


def external_tensors(graph: onnx_ir.Graph) -> Iterator[onnx_ir.ExternalTensor]:
    """The tensors of a graph that lie in other files, those of inner graphs and nodes included."""
    for tensor in _tensors(graph):
        if isinstance(tensor, onnx_ir.ExternalTensor):
            yield tensor


def _tensors(graph: onnx_ir.Graph) -> Iterator[Any]:
    for value in graph.initializers.values():
        yield value.const_value
    for node in graph:
        for attribute in node.attributes.values():
            kind = "" if attribute.is_ref() else attribute.type.name
            held = attribute.value if kind.endswith("S") else [attribute.value]
            if kind in ("TENSOR", "TENSORS"):
                yield from held
            elif kind in ("GRAPH", "GRAPHS"):
                for inner in held:
                    yield from _tensors(inner)


def _extent(tensor: onnx_ir.ExternalTensor) -> Extent:
    label = f"initializer {tensor.name!r}"
    needed = byte_count(tensor.dtype, tensor.size)
    return Extent(label, str(tensor.location), tensor.offset or 0, tensor.length, needed)
