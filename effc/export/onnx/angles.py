"""Angles of rotations as tables over positions.

The angles of most decoders are a function of each token's position alone. Evaluated at every
position of the context they are two tables, cosines and sines `[context, R]`, one entry per pair
of coordinates, which operators for rotations take.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from effc.ir.pattern import op_name


@dataclass
class AngleTables:
    """Tables for the angles in one graph.

    Attributes:
        module: the graph, with its weights.
        context: positions per table.
        positions: the placeholder of positions, `[B, T]`.
        tokens: the placeholder of token ids or embeddings; only its first two sizes may matter.
    """

    module: fx.GraphModule
    context: int
    positions: fx.Node
    tokens: fx.Node
    _known: dict[fx.Node, Tensor | None] = field(default_factory=dict)

    def table(self, angles: fx.Node, style: str) -> Tensor | None:
        """The table `[context, R]` of cosines or sines, None if it is no table.

        Args:
            angles: `[B, 1, T, 2R]` or `[B, T, 2R]`, one entry per coordinate.
            style: which coordinates are a pair, see `effc::rope`.
        """
        plain = op_name(angles) == "aten.unsqueeze.default" and angles.args[1] == 1
        source = angles.args[0] if plain else angles
        assert isinstance(source, fx.Node)
        if source not in self._known:
            self._known[source] = self._evaluated(source)
        full = self._known[source]
        return None if full is None else _one_per_pair(full, style)

    def _evaluated(self, source: fx.Node) -> Tensor | None:
        """Angles [context, 2R] at every position, if they depend on it alone."""
        needed = self._ancestors(source)
        if needed is None:
            return None
        # A model that looks angles up in a table knows no positions beyond it.
        count = min([self.context, *self._rows(needed)])
        everywhere = self._run(source, needed, torch.arange(count))
        if everywhere is None:
            return None
        last = count - 1
        for sample in ((0,), (last,), (last // 2, 1, last // 3)):
            at = torch.tensor(sample)
            alone = self._run(source, needed, at)
            if alone is None or not torch.equal(alone, everywhere[at]):
                return None
        return everywhere

    def _ancestors(self, source: fx.Node) -> set[fx.Node] | None:
        """All that `source` is computed from; None if that is more than positions."""
        found: set[fx.Node] = set()
        open_nodes = [source]
        while open_nodes:
            node = open_nodes.pop()
            if node in found:
                continue
            found.add(node)
            inputs = node.all_input_nodes
            if self.tokens in inputs and op_name(node) != "aten.sym_size.int":
                return None
            open_nodes += inputs
        foreign = {n for n in found if n.op == "placeholder"} - {self.positions, self.tokens}
        return None if foreign else found

    def _rows(self, needed: set[fx.Node]) -> list[int]:
        """Rows of the tables that are looked up."""
        tables = [n.args[0] for n in needed if op_name(n) == "aten.index.Tensor"]
        return [
            int(_attribute(self.module, str(table.target)).shape[0])
            for table in tables
            if isinstance(table, fx.Node) and table.op == "get_attr"
        ]

    def _run(self, source: fx.Node, needed: set[fx.Node], positions: Tensor) -> Tensor | None:
        """The value of `source` [n, 2R] for one sequence at these positions [n]."""
        row = positions[None]
        values: dict[fx.Node, Any] = {self.positions: row, self.tokens: torch.zeros_like(row)}
        with torch.no_grad():
            for node in self.module.graph.nodes:
                if node not in needed or node in values:
                    continue
                if node.op == "get_attr":
                    values[node] = _attribute(self.module, str(node.target))
                else:
                    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: values[n])
                    values[node] = node.target(*args, **kwargs)
        result = values[source]
        single = result.numel() == len(positions) * result.shape[-1]
        return result.flatten(0, -2) if single else None


def _attribute(module: torch.nn.Module, path: str) -> Any:
    for part in path.split("."):
        module = getattr(module, part)
    return module


def _one_per_pair(full: Tensor, style: str) -> Tensor | None:
    """[context, 2R] -> [context, R] if both coordinates of every pair have the same angle."""
    if style == "half":
        first, second = full.chunk(2, -1)
    else:
        first, second = full[..., ::2], full[..., 1::2]
    return first.contiguous() if torch.equal(first, second) else None
