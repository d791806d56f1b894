"""How much memory the values of a stage take at their worst moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import fx

from effc.cost.graph import Situation
from effc.cost.operators import is_view, packet
from effc.cost.shapes import Shapes, value_of
from effc.ir.program import Stage

IN_PLACE = ("effc.cache_write_",)


@dataclass(frozen=True)
class Peak:
    """The worst moment of a stage.

    Attributes:
        nbytes: of all values that live then; weights, inputs and cache are not among them.
        node: the call during which it happens; empty where nothing is computed.
        place: its module path.
    """

    nbytes: int
    node: str = ""
    place: str = ""


def live_peak(stage: Stage, situation: Situation) -> Peak:
    """The most bytes of computed values that live at once.

    A value lives from the call that makes it to its last use, and while a view of it lives;
    results live to the end. What a kernel allocates and frees within its call is not counted.
    """
    shapes = Shapes(stage, situation.sizes)
    rows = Shapes(stage, {**situation.sizes, "T": 1})
    owner = owners(stage)
    last = _last_uses(stage, owner)
    live: dict[fx.Node, int] = {}
    peak = Peak(0)
    for node in stage.graph.nodes:
        if owner.get(node) is node:
            chosen = rows if node.name in situation.logit_rows else shapes
            live[node] = chosen.nbytes(value_of(node))
        held = sum(live.values())
        if held > peak.nbytes:
            peak = Peak(held, node.name, str(node.meta.get("path") or ""))
        for dead in [value for value in live if last[value] is node]:
            del live[dead]
    return peak


def owners(stage: Stage) -> dict[fx.Node, fx.Node]:
    """Node -> the call that made the memory of its value; absent for inputs and weights."""
    found: dict[fx.Node, fx.Node] = {}
    for node in stage.graph.nodes:
        if node.op != "call_function" or packet(node) in IN_PLACE:
            continue
        if is_view(node):
            source: Any = node.args[0]
            if source in found:
                found[node] = found[source]
        else:
            found[node] = node
    return found


def _last_uses(stage: Stage, owner: dict[fx.Node, fx.Node]) -> dict[fx.Node, fx.Node]:
    """Owner of memory -> the last node that reads it, itself if nobody does."""
    last: dict[fx.Node, fx.Node] = {}
    for node in stage.graph.nodes:
        if owner.get(node) is node:
            last[node] = node
        for source in node.all_input_nodes:
            if source in owner:
                last[owner[source]] = node
    return last
