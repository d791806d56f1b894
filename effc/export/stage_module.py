"""A stage as an `nn.Module`: what exporters hand to `torch.export`.

Weights keep their names as attribute paths, each is held once, and the cache is functional again:
planes go in and come out, as before bufferization. Which kernel lowering chose is left behind; an
exported program names operators.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable

import torch
from torch import fx, nn

from effc.ir.pattern import op_name
from effc.ir.program import Program, Stage

IN_PLACE = "effc.cache_write_.default"


def stage_module(program: Program, stage: Stage) -> fx.GraphModule:
    """A stage over its weights.

    Args:
        program: holds the weights, which are loaded now.
        stage: lowered or not; it is left as it is.

    Returns:
        A module of the stage's inputs, in order. It returns the stage's results as one tuple, and
        behind them every plane that the stage updates in place, in the order of the inputs.
    """
    graph = fx.Graph()
    graph.output(graph.graph_copy(stage.graph, {}))
    planes = _functional(graph)
    output = graph.output_node()
    output.args = ((*output.args[0], *planes),)  # type: ignore[misc]
    root, paths = _weights(program, stage.weight_names())
    for node in graph.nodes:
        if node.op == "get_attr":
            node.target = paths[str(node.target)]
    return fx.GraphModule(root, graph, class_name=stage.name)


def updated_planes(stage: Stage) -> list[str]:
    """The inputs that a stage updates in place, in their order."""
    written = {
        str(plane.target)
        for node in stage.graph.nodes
        if op_name(node) == IN_PLACE
        for plane in node.args[0]
    }
    return [spec.name for spec in stage.inputs if spec.name in written]


def _functional(graph: fx.Graph) -> list[fx.Node]:
    """Undo bufferization.

    Before:
        effc.cache_write_([k0], k, slots, "fp32")
        o = effc.attend(q, [k0], ...)
    After:
        w = effc.cache_write([k0], k, slots, "fp32")
        n = w[0]
        o = effc.attend(q, [n], ...)

    Returns:
        The planes as they are at the end, in the order of the inputs.
    """
    latest: dict[fx.Node, fx.Node] = {}

    def now(node: fx.Node) -> fx.Node:
        return latest.get(node, node)

    for node in list(graph.nodes):
        node.args = fx.map_arg(node.args, now)
        if op_name(node) != IN_PLACE:
            continue
        planes = list(node.args[0])
        with graph.inserting_before(node):
            written = graph.call_function(torch.ops.effc.cache_write.default, node.args)
            for i, plane in enumerate(planes):
                latest[plane] = graph.call_function(operator.getitem, (written, i))
        graph.erase_node(node)
    return [latest[node] for node in graph.nodes if node in latest]


def _weights(program: Program, names: Iterable[str]) -> tuple[nn.Module, dict[str, str]]:
    """A module that holds the weights, and the attribute path of each."""
    root = nn.Module()
    names = list(names)
    paths = {name: _path(name, set(names)) for name in names}
    for name, path in paths.items():
        *parents, leaf = path.split(".")
        owner = root
        for parent in parents:
            if parent not in owner._modules:
                owner.add_module(parent, nn.Module())
            owner = owner.get_submodule(parent)
        values = program.weights[name].load()
        owner.register_parameter(leaf, nn.Parameter(values, requires_grad=False))
    return root, paths


def _path(name: str, names: set[str]) -> str:
    """A weight's attribute path: its name, unless a part of it is a weight itself.

    `head.weight.codes` beside `head.weight` becomes `head.weight_packed.codes`.
    """
    parts: list[str] = []
    path = ""
    for part in name.split("."):
        path = f"{path}.{part}" if path else part
        parts.append(f"{part}_packed" if path in names and path != name else part)
    return ".".join(parts)
