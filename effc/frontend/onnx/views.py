"""What the checks of a graph's structure look at: which node reads and writes which value.

A file names its values (protobuf), a model in memory holds them as objects (onnx_ir). A view has
the same form for both; only equality of values matters to who reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any

from effc.frontend.onnx.damage import damaged, text
from effc.frontend.onnx.table import plain_domain

DEEPEST = 24
"""Graphs within graphs. Protobuf's own limit of 100 nested messages allows 33."""


@dataclass(frozen=True)
class NodeView:
    """One node.

    Attributes:
        label: for messages.
        function: (domain, name, overload), the key of the function that it may call.
        inputs: values read; absent optional ones are left out.
        outputs: values written; unwanted ones are left out.
        graphs: bodies of control flow.
    """

    label: str
    function: tuple[str, str, str]
    inputs: tuple[Hashable, ...]
    outputs: tuple[Hashable, ...]
    graphs: tuple[GraphView, ...]


@dataclass(frozen=True)
class GraphView:
    """A graph, a body of control flow, or the body of a function.

    Attributes:
        label: for messages.
        inputs: values that come from outside.
        constants: values with an initializer.
        nodes: in the order of the file.
        outputs: values handed out.
        sort: puts the nodes in another order, given the rank of each.
    """

    label: str
    inputs: tuple[Hashable, ...]
    constants: tuple[Hashable, ...]
    nodes: tuple[NodeView, ...]
    outputs: tuple[Hashable, ...]
    sort: Callable[[list[int]], None]

    def all_nodes(self) -> Iterator[NodeView]:
        """The nodes, those of inner graphs included."""
        for node in self.nodes:
            yield node
            for graph in node.graphs:
                yield from graph.all_nodes()


def node_label(node: Any, index: int | None = None) -> str:
    """A node of protobuf or of onnx_ir by its name, or by its index where it has none."""
    known = repr(node.name) if node.name else "without a name" if index is None else str(index)
    return f"node {known} ({node.op_type})"


def value_name(value: Hashable) -> str:
    """A value by its name, whichever form it has."""
    return repr(value if isinstance(value, str) else getattr(value, "name", None) or "?")


def view_proto(graph: Any, label: str, place: str, depth: int = 0) -> GraphView:
    """A view of a `GraphProto` or a `FunctionProto`.

    Raises:
        ModelError: E0310, graphs are nested too deeply, or a name is no text.
    """
    if depth > DEEPEST:
        raise damaged(place, f"graphs are nested more than {DEEPEST} deep")
    is_function = not hasattr(graph, "initializer")

    def named(values: Any) -> tuple[str, ...]:
        names = values if is_function else [value.name for value in values]
        return tuple(text(name, f"the name of a value of {label}", place) for name in names)

    return GraphView(
        label,
        named(graph.input),
        () if is_function else named(graph.initializer),
        tuple(_proto_node(node, i, place, depth) for i, node in enumerate(graph.node)),
        named(graph.output),
        lambda ranks: _sort(graph.node, ranks),
    )


def _sort(nodes: Any, ranks: list[int]) -> None:
    remaining = iter(ranks)  # sorting asks for the keys in the present order
    nodes.sort(key=lambda _: next(remaining))


def _proto_node(node: Any, index: int, place: str, depth: int) -> NodeView:
    key = node.domain, node.op_type, getattr(node, "overload", "")
    for value in (node.name, *key, *node.input, *node.output):
        text(value, f"a name in node {index}", place)
    label = node_label(node, index)
    if not node.op_type:
        raise damaged(place, f"{label} names no operator")
    graphs = [
        view_proto(graph, f"the graph {attribute.name!r} of {label}", place, depth + 1)
        for attribute in node.attribute
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)
    ]
    inputs, outputs = tuple(filter(None, node.input)), tuple(filter(None, node.output))
    return NodeView(label, (plain_domain(key[0]), *key[1:]), inputs, outputs, tuple(graphs))


def view_model(graph: Any, label: str, place: str, depth: int = 0) -> GraphView:
    """A view of an `onnx_ir.Graph`, whose values are its own objects.

    Raises:
        ModelError: E0310, graphs are nested too deeply.
    """
    if depth > DEEPEST:
        raise damaged(place, f"graphs are nested more than {DEEPEST} deep")
    return GraphView(
        label,
        tuple(graph.inputs),
        tuple(value for value in graph.initializers.values() if value.const_value is not None),
        tuple(_model_node(node, i, place, depth) for i, node in enumerate(graph)),
        tuple(graph.outputs),
        lambda ranks: graph.sort(),
    )


def _model_node(node: Any, index: int, place: str, depth: int) -> NodeView:
    label = node_label(node, index)
    graphs = [
        view_model(graph, f"the graph {attribute.name!r} of {label}", place, depth + 1)
        for attribute in node.attributes.values()
        if not attribute.is_ref()
        for graph in _graphs(attribute)
    ]
    inputs = tuple(value for value in node.inputs if value is not None)
    key = plain_domain(node.domain), node.op_type, node.overload
    return NodeView(label, key, inputs, tuple(node.outputs), tuple(graphs))


def _graphs(attribute: Any) -> list[Any]:
    kind = attribute.type.name
    return (
        [attribute.value] if kind == "GRAPH" else list(attribute.value) if kind == "GRAPHS" else []
    )
