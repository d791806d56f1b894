"""Read parts of a tensor as slices, whatever cut them.

Before:
    parts = aten.split_with_sizes.default(x, [8, 4], -1)
    a, b = parts[0], parts[1]
After:
    a = aten.slice.Tensor(x, 1, 0, 8)
    b = aten.slice.Tensor(x, 1, 8, 12)

Only where the cuts are known at compile time.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar

import torch
from torch import fx

from effc.ir.journal import Journal
from effc.ir.passbase import Outcome, Pass, PassStage
from effc.ir.pattern import op_name
from effc.ir.program import Program

aten = torch.ops.aten

_SPLITS = {
    "aten.split_with_sizes.default",
    "aten.split.sizes",
    "aten.split.Tensor",
    "aten.chunk.default",
    "aten.unsafe_chunk.default",
    "aten.unsafe_split.Tensor",
}


@dataclass(frozen=True)
class SlicesOfSplits(Pass):
    """Items of a split become slices."""

    name: ClassVar[str] = "slices-of-splits"
    stage: ClassVar[PassStage] = PassStage.NORMALIZE

    def call(self, program: Program, journal: Journal) -> list[Outcome]:
        """One outcome per item."""
        outcomes = []
        for stage in program.stages.values():
            rewriter = self.rewriter(program, stage, journal)
            for node in list(stage.graph.nodes):
                bounds = _bounds(node)
                if bounds is None:
                    continue
                place = rewriter.graph_place(node)
                with rewriter.before(node):
                    cut = rewriter.call(aten.slice.Tensor, node.args[0].args[0], *bounds)  # type: ignore[union-attr]
                rewriter.replace(node, cut)
                outcomes.append(Outcome(place, "applied"))
        return outcomes


def _bounds(node: fx.Node) -> tuple[int, int, int] | None:
    """(dimension, start, end) of an item of a split; None for everything else."""
    if node.target is not operator.getitem or node.meta.get("val") is None:
        return None
    split, index = node.args
    if not isinstance(split, fx.Node) or op_name(split) not in _SPLITS:
        return None
    widths = _widths(split)
    if widths is None:
        return None
    ends = list(accumulate(widths))
    place = range(len(ends))[index]  # type: ignore[index]
    return _dim(split), ends[place] - widths[place], ends[place]


def _dim(split: fx.Node) -> int:
    dim: Any = split.kwargs.get("dim", split.args[2] if len(split.args) > 2 else 0)
    return dim % split.args[0].meta["val"].dim()  # type: ignore[union-attr]


def _widths(split: fx.Node) -> list[int] | None:
    """The widths of all parts, None where they depend on the input."""
    cuts = split.args[1]
    if isinstance(cuts, list | tuple):
        return list(cuts) if all(isinstance(width, int) for width in cuts) else None  # type: ignore[arg-type]
    widths = [part.shape[_dim(split)] for part in split.meta["val"]]
    return widths if all(isinstance(width, int) for width in widths) else None
