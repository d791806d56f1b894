"""Values that depend on sizes alone: masks and positions that a graph computes for itself.

Such a value is a function of a few integers (how many sequences, how many tokens), so it can be
evaluated without the model's inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from effc.ir.program import Program, Stage

_SIZE = "aten.sym_size.int"

# Read the shape and the element type of their first argument, and nothing else of it.
_LIKE = frozenset(
    f"aten.{name}.default"
    for name in ["ones_like", "zeros_like", "full_like", "new_ones", "new_zeros", "new_full"]
)


def size_only(stage: Stage) -> set[fx.Node]:
    """The calls that read no input but for its sizes, and no input's sizes that lack a name.

    Weights count as known: a table of a mask is one.
    """
    names = {spec.name: spec.shape for spec in stage.inputs}
    found: set[fx.Node] = set()
    for node in stage.graph.nodes:
        known = node.op == "call_function" and all(n in found for n in node.all_input_nodes)
        if node.op == "get_attr" or known or _reads_size(node, names):
            found.add(node)
    return found


def _reads_size(node: fx.Node, names: Mapping[str, tuple[int | str, ...]]) -> bool:
    """Whether a node reads of an input its sizes alone, which are known once sizes are."""
    if node.op != "call_function" or str(node.target) not in (_SIZE, *_LIKE):
        return False
    source, *others = node.all_input_nodes
    return source.op == "placeholder" and source.target in names and not others


class Evaluation:
    """Evaluates size-only values of a stage for chosen sizes.

    Args:
        program: holds the weights.
        stage: the graph.
        sizes: size name of the inputs, e.g. "B" -> value.
    """

    def __init__(self, program: Program, stage: Stage, sizes: Mapping[str, int]) -> None:
        self._program = program
        self._inputs_by_name = {spec.name: spec for spec in stage.inputs}
        self._sizes = sizes
        self._values: dict[fx.Node, Any] = {}

    def __call__(self, node: fx.Node) -> Any:
        """The value of a node of `size_only(stage)`.

        Raises:
            RuntimeError, IndexError, ValueError: the graph does not hold for these sizes.
        """
        pending = [node]
        with torch.no_grad():
            while pending:
                last = pending[-1]
                missing = [n for n in self._inputs(last) if n not in self._values]
                if missing:
                    pending += missing
                    continue
                pending.pop()
                if last not in self._values:
                    self._values[last] = self._compute(last)
        return self._values[node]

    def _inputs(self, node: fx.Node) -> list[fx.Node]:
        return [n for n in node.all_input_nodes if n.op != "placeholder"]

    def _compute(self, node: fx.Node) -> Any:
        if node.op == "get_attr":
            return self._program.weights[str(node.target)].load()
        args, kwargs = fx.map_arg((node.args, node.kwargs), self._value)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    def _value(self, node: fx.Node) -> Any:
        return self._stand_in(node) if node.op == "placeholder" else self._values[node]

    def _stand_in(self, node: fx.Node) -> torch.Tensor:
        """An input of the right sizes, whose values nobody reads."""
        spec = self._inputs_by_name[str(node.target)]
        sizes = [s if isinstance(s, int) else self._sizes[s] for s in spec.shape]
        return torch.empty(sizes, dtype=spec.dtype)
