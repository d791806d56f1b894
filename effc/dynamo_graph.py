"""A graph of Dynamo as a module: weights under their names in the model, inputs apart.

Dynamo passes everything as placeholders, in the order of first use: parameters and buffers, what
callers pass, and the symbolic sizes of it. It knows where each comes from.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.traceback import preserve_node_meta

from effc.diagnostics import ModelError

Callee = Callable[..., Sequence[Any]]

# How Dynamo writes the way to a weight or module: steps by attribute or by table, behind a root.
_STEP = re.compile(r"\._(?:modules|parameters|buffers)\['([^']+)'\]")
_WEIGHT = re.compile(r"\._(?:parameters|buffers)\['[^']+'\]$")
_ROOT = re.compile(r"^[LG]\['\w+'\](?:\.__closure__\[\d+\]\.cell_contents)?\.?")


@dataclass(frozen=True)
class Signature:
    """What the placeholders of a graph are, by position.

    Attributes:
        weights: position -> the name of a parameter or buffer in the model.
        inputs: name -> position of the tensors that callers pass.
        sizes: position of a symbolic size -> (name of an input, its dimension of that size).
    """

    weights: Mapping[int, str]
    inputs: Mapping[str, int]
    sizes: Mapping[int, tuple[str, int]]

    @staticmethod
    def of(graph: fx.GraphModule, values: Sequence[Any]) -> Signature:
        nodes = graph.graph.find_nodes(op="placeholder")
        weights: dict[int, str] = {}
        inputs: dict[str, int] = {}
        for at, (node, value) in enumerate(zip(nodes, values, strict=True)):
            if not isinstance(value, Tensor):
                continue
            if name := _weight_name(node):
                weights[at] = name
            else:
                inputs[f"input{len(inputs)}"] = at
        fakes = {name: nodes[at].meta["example_value"] for name, at in inputs.items()}
        sizes = {
            at: _size(nodes[at], fakes)
            for at, value in enumerate(values)
            # Dynamo also lists strides of inputs that lie apart in memory; nobody reads them.
            if not isinstance(value, Tensor) and nodes[at].users
        }
        return Signature(_distinct(weights), inputs, sizes)

    def dynamic_shapes(self, graph: fx.GraphModule) -> dict[str, dict[int, Any]]:
        """The dimensions that Dynamo left open; all others are constants of this graph."""
        nodes = graph.graph.find_nodes(op="placeholder")
        return {
            name: {
                d: torch.export.Dim.DYNAMIC
                for d, size in enumerate(nodes[at].meta["example_value"].shape)
                if isinstance(size, torch.SymInt) and not size.node.expr.is_number
            }
            for name, at in self.inputs.items()
        }

    def callee(self, graph: fx.GraphModule, run: Callable[..., Mapping[str, Tensor]]) -> Callee:
        """What Dynamo calls with a value for each placeholder."""
        results = graph.graph.output_node().args[0]
        places = {node: at for at, node in enumerate(graph.graph.find_nodes(op="placeholder"))}

        def call(*values: Any) -> list[Any]:
            inputs = {name: values[at] for name, at in self.inputs.items()}
            tensors = iter(run("forward", inputs).values())
            return [
                next(tensors) if _is_tensor(result) else _size_of(result, places, values)
                for result in results  # type: ignore[union-attr]
            ]

        return call


class BoundGraph(nn.Module):
    """A graph with its weights bound under their names; a module of its inputs alone."""

    def __init__(self, graph: fx.GraphModule, signature: Signature, values: Sequence[Any]) -> None:
        super().__init__()
        self._signature = signature
        self._count = len(values)
        # Outside of the module tree: its names are Dynamo's.
        self.__dict__["_graph"] = _with_plain_paths(graph)
        for at, name in signature.weights.items():
            _bind(self, name, values[at])
        self._results = [_is_tensor(r) for r in graph.graph.output_node().args[0]]  # type: ignore[union-attr]
        self.forward = _by_name(self._run, signature.inputs)

    def _run(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        values: list[Any] = [None] * self._count
        for at, name in self._signature.weights.items():
            values[at] = _attribute(self, name)
        for name, at in self._signature.inputs.items():
            values[at] = inputs[name]
        for at, (name, dimension) in self._signature.sizes.items():
            values[at] = inputs[name].shape[dimension]
        with preserve_node_meta():
            results = fx.Interpreter(self.__dict__["_graph"]).run(*values)
        kept = zip(results, self._results, strict=True)
        return tuple(result for result, is_tensor in kept if is_tensor)


def _by_name(
    function: Callable[[Mapping[str, Any]], Any], names: Iterable[str]
) -> Callable[..., Any]:
    """A function of keywords that `torch.export` can ask for their names."""

    def forward(**inputs: Any) -> Any:
        return function(inputs)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, kind) for name in names]
    forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return forward


def _with_plain_paths(graph: fx.GraphModule) -> fx.GraphModule:
    """A copy whose nodes say where they come from as `torch.export` does: "layers.0.linear"."""
    copy = fx.Graph()
    copy.output(copy.graph_copy(graph.graph, {}))
    for node in copy.nodes:
        stack = node.meta.get("nn_module_stack") or {}
        node.meta["nn_module_stack"] = {
            key: (_ROOT.sub("", path), kind) for key, (path, kind) in stack.items()
        }
    return fx.GraphModule(graph, copy)


def _weight_name(node: fx.Node) -> str | None:
    """The name of the parameter or buffer behind a placeholder, None for an input."""
    source = getattr(node, "_dynamo_source", None)
    name = getattr(source, "name", "")
    text = str(name() if callable(name) else name)
    return ".".join(_STEP.findall(text)) if _WEIGHT.search(text) else None


def _distinct(names: Mapping[int, str]) -> dict[int, str]:
    """Two models in one function may call their weights the same; the later ones are numbered."""
    taken: dict[str, int] = {}
    result = {}
    for at, name in names.items():
        count = taken[name] = taken.get(name, 0) + 1
        result[at] = name if count == 1 else f"model{count}.{name}"
    return result


def _size(node: fx.Node, fakes: Mapping[str, Tensor]) -> tuple[str, int]:
    """An input and its dimension of a size."""
    value = node.meta["example_value"]
    for name, fake in fakes.items():
        for d, size in enumerate(fake.shape):
            if isinstance(value, torch.SymInt) and str(size) == str(value):
                return name, d
    raise ModelError(
        "E0306",
        f"the graph takes a {type(value).__name__} that is no size of an input",
        where="torch.compile",
        help="pass a tensor, or make the number an attribute of the module",
    )


def _is_tensor(result: Any) -> bool:
    return isinstance(result, fx.Node) and isinstance(result.meta["example_value"], Tensor)


def _size_of(result: Any, places: Mapping[fx.Node, int], values: Sequence[Any]) -> Any:
    """A result that is no tensor: a constant, or an expression over the sizes given."""
    if not isinstance(result, fx.Node):
        return result
    known = {
        node.meta["example_value"].node.expr: values[at]
        for node, at in places.items()
        if isinstance(node.meta["example_value"], torch.SymInt)
    }
    return int(result.meta["example_value"].node.expr.xreplace(known))


def _bind(root: nn.Module, name: str, value: Tensor) -> None:
    """Put a weight where its name says."""
    *parents, leaf = name.split(".")
    owner = root
    for parent in parents:
        if parent not in owner._modules:
            owner.add_module(parent, nn.Module())
        owner = owner.get_submodule(parent)
    if isinstance(value, nn.Parameter):
        owner.register_parameter(leaf, value)
    else:
        owner.register_buffer(leaf, value)


def _attribute(root: nn.Module, name: str) -> Tensor:
    parent, _, leaf = name.rpartition(".")
    return getattr(root.get_submodule(parent), leaf)
