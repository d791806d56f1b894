"""Every value of a graph has one source, which comes before all that reads it."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Mapping

from effc.diagnostics import ModelError
from effc.frontend.onnx.damage import damaged
from effc.frontend.onnx.views import GraphView, NodeView, value_name

LARGEST = 1_000_000
"""Nodes of a model after its functions have been put in place."""

DEEPEST_CALLS = 32
"""Functions that call functions."""

FunctionKey = tuple[str, str, str]


def check_structure(
    graph: GraphView, functions: Mapping[FunctionKey, GraphView], place: str
) -> None:
    """Check the graph, the graphs within it and the functions; sort nodes that are out of order.

    Args:
        graph: the model's graph.
        functions: (domain, name, overload) -> body.
        place: for messages.

    Raises:
        ModelError: E0310: a value has no source or two, nodes read one another's results in a
            cycle, functions call themselves or grow beyond `LARGEST` nodes.
    """
    for body in (graph, *functions.values()):
        for name, reader in _check_graph(body, place).items():
            message = f"{reader} reads {value_name(name)}, which nothing produces"
            raise damaged(place, message)
    _check_calls(graph, functions, place)


def _check_graph(graph: GraphView, place: str) -> dict[Hashable, str]:
    """Check one graph; returns what it reads from around it, with a label of who reads it."""
    sources = _sources(graph, place)
    for name in graph.outputs:
        if name not in sources:
            raise damaged(place, f"{value_name(name)}, an output of {graph.label}, has no source")
    free: dict[Hashable, str] = {}
    needs: list[set[int]] = []
    for node in graph.nodes:
        reads = dict.fromkeys(node.inputs, node.label)
        for inner in node.graphs:
            reads |= _check_graph(inner, place)
        free |= {name: label for name, label in reads.items() if name not in sources}
        producers = {sources[name] for name in reads if name in sources}
        needs.append({producer for producer in producers if producer is not None})
    if any(producer >= i for i, producers in enumerate(needs) for producer in producers):
        graph.sort(_ranks(graph, needs, place))
    return free


def _sources(graph: GraphView, place: str) -> dict[Hashable, int | None]:
    """Value -> index of the node that makes it; None for inputs and initializers."""
    for kind, names in (("input", graph.inputs), ("initializer", graph.constants)):
        if "" in names:
            raise damaged(place, f"an {kind} of {graph.label} has no name")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise damaged(place, f"{graph.label} has two {kind}s named {value_name(twice)}")
    found: dict[Hashable, int | None] = dict.fromkeys((*graph.inputs, *graph.constants))
    for i, node in enumerate(graph.nodes):
        for name in node.outputs:
            if name in found:
                first = found[name]
                other = "an input or initializer" if first is None else graph.nodes[first].label
                message = f"{value_name(name)} has two sources: {other} and {node.label}"
                raise damaged(place, message)
            found[name] = i
    return found


def _ranks(graph: GraphView, needs: list[set[int]], place: str) -> list[int]:
    """Positions of the nodes in an order in which sources come first, else as in the file."""
    readers: list[list[int]] = [[] for _ in needs]
    for node, producers in enumerate(needs):
        for producer in producers:
            readers[producer].append(node)
    missing = [len(producers) for producers in needs]
    ready = [node for node, count in enumerate(missing) if not count]
    ranks: dict[int, int] = {}
    while ready:
        node = heapq.heappop(ready)
        ranks[node] = len(ranks)
        for reader in readers[node]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, reader)
    if len(ranks) < len(needs):
        raise _cycle(graph, needs, set(ranks), place)
    return [ranks[node] for node in range(len(needs))]


def _cycle(graph: GraphView, needs: list[set[int]], sound: set[int], place: str) -> ModelError:
    """Every node that could not be ordered needs another such node: going back finds the cycle."""
    node = min(set(range(len(needs))) - sound)
    way: list[int] = []
    while node not in way:
        way.append(node)
        node = min(needs[node] - sound)
    cycle = [graph.nodes[i].label for i in reversed(way[way.index(node) :])]
    length = f" of {len(cycle)} nodes" if len(cycle) > 1 else ""
    shown = " -> ".join(cycle[:4]) + (" -> ..." if len(cycle) > 4 else f" -> {cycle[0]}")
    help = "an ONNX graph has no cycles; loops are the operators Loop and Scan"
    return damaged(place, f"{graph.label} has a cycle{length}: {shown}", help)


def _check_calls(graph: GraphView, functions: Mapping[FunctionKey, GraphView], place: str) -> None:
    """Functions that call themselves never end; chains of calls can double with every link."""
    sizes: dict[FunctionKey, int] = {}

    def expanded(body: GraphView, callers: tuple[FunctionKey, ...]) -> int:
        total = 0
        for node in body.all_nodes():
            total += _size(node, callers)
        if total > LARGEST:
            raise damaged(place, f"the functions of the file expand to more than {LARGEST} nodes")
        return total

    def _size(node: NodeView, callers: tuple[FunctionKey, ...]) -> int:
        key = node.function
        if key not in functions:
            return 1
        if key in callers:
            shown = " -> ".join(name for _, name, _ in (*callers[callers.index(key) :], key))
            raise damaged(place, f"a function of the file calls itself: {shown}")
        if len(callers) == DEEPEST_CALLS:
            raise damaged(place, f"functions call one another more than {DEEPEST_CALLS} deep")
        if key not in sizes:
            sizes[key] = expanded(functions[key], (*callers, key))
        return sizes[key]

    expanded(graph, ())
    for key, body in functions.items():
        expanded(body, (key,))
