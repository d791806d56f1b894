"""Number the layers of a model whose nodes do not say where they came from.

Before:
    q = aten.linear(h, w)             # layer unknown
    y = effc.attention(q, k, v, ...)
After:
    q = aten.linear(h, w)             # layer 0
    y = effc.attention(q, k, v, ...)  # layer 0

Exporters may keep no module paths, and policies speak of layers. A layer is read off the dataflow:
it holds one attention, what is computed for that attention alone, and what only later attentions
read; so a gated MLP is found beside its attention as well as behind it. The head behind the last
layer, a chain from the output back to where two values meet, belongs to none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx

from effc.ir.journal import Journal
from effc.ir.passbase import Outcome, Pass, PassStage
from effc.ir.pattern import op_name
from effc.ir.program import Program, Stage

ATTENTION = "effc.attention.default"


@dataclass(frozen=True)
class NumberLayers(Pass):
    """Layer indices from the order of attentions, where no node has one."""

    name: ClassVar[str] = "number-layers"
    stage: ClassVar[PassStage] = PassStage.RAISE
    after: ClassVar[tuple[str, ...]] = ("raise-attention", "raise-linear", "find-positions")

    def call(self, program: Program, journal: Journal) -> list[Outcome]:
        """One outcome per stage whose layers were numbered."""
        outcomes = []
        for stage in program.stages.values():
            if any(node.meta.get("layer") is not None for node in stage.graph.nodes):
                continue
            layers = _layers(stage)
            rewriter = self.rewriter(program, stage, journal)
            for node, layer in layers.items():
                rewriter.mark(node, "layer", layer)
            if layers:
                count = 1 + max(layers.values())
                outcomes.append(Outcome(f"{stage.name}: {count} layers", "applied"))
        return outcomes


def _layers(stage: Stage) -> dict[fx.Node, int]:
    attentions = [node for node in stage.graph.nodes if op_name(node) == ATTENTION]
    if not attentions:
        return {}
    head = set(_head(stage))
    reading = _first_reader(stage, attentions)
    own = {n: i for i, attention in enumerate(attentions) for n in _computed_for(attention)}
    found: dict[fx.Node, int] = {}
    for node in reversed(stage.graph.nodes):
        if node.op != "call_function" or node in head:
            continue
        layer = own.get(node, reading.get(node, len(attentions)) - 1)
        below = {found.get(user) for user in node.users}
        if len(below) == 1 and None not in below and _is_step(node):
            layer = below.pop()  # type: ignore[assignment]
        if layer >= 0:
            found[node] = layer
    return found


def _is_step(node: fx.Node) -> bool:
    """One value in, as a norm has: no place where two values meet."""
    return sum(_is_value(source) for source in node.all_input_nodes) == 1


def _first_reader(stage: Stage, attentions: list[fx.Node]) -> dict[fx.Node, int]:
    """Call -> the first attention that depends on it."""
    numbers = {node: index for index, node in enumerate(attentions)}
    first: dict[fx.Node, int] = {}
    for node in reversed(stage.graph.nodes):
        readers = [numbers.get(user, first.get(user)) for user in node.users]
        known = [reader for reader in readers if reader is not None]
        if known:
            first[node] = min(known)
    return first


def _computed_for(attention: fx.Node) -> Iterator[fx.Node]:
    """The attention, and the calls that nobody else reads."""
    own = {attention}
    pending = [attention]
    while pending:
        node = pending.pop()
        yield node
        for source in node.all_input_nodes:
            ready = source.op == "call_function" and source not in own
            if ready and all(user in own for user in source.users):
                own.add(source)
                pending.append(source)


def _head(stage: Stage) -> Iterator[fx.Node]:
    """From the outputs back to where two values meet."""
    for node in stage.results().values():
        while isinstance(node, fx.Node) and node.op == "call_function":
            values = [source for source in node.all_input_nodes if _is_value(source)]
            if len(values) != 1:
                break
            yield node
            node = values[0]


def _is_value(node: fx.Node) -> bool:
    """Neither a weight nor a size."""
    return node.op == "call_function" and isinstance(node.meta.get("val"), torch.Tensor)
