"""Views said as what they are: dimensions merged and split.

    y = aten.view(x, [B * T, W])        # x: [B, T, W]
    y = aten.flatten(x, 0, 1)

The sizes of a view are numbers; which dimensions of the input make up which of the output is left
to whoever lowers it. With symbolic sizes that is guesswork: torch-mlir takes T for 1 above. The
symbols of the shapes tell, so they are asked before the program leaves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import fx
from torch.export import ExportedProgram

_VIEWS = (
    torch.ops.aten.view.default,
    torch.ops.aten._unsafe_view.default,
    torch.ops.aten.reshape.default,
)
_FLATTEN = torch.ops.aten.flatten.using_ints
_UNFLATTEN = torch.ops.aten.unflatten.int


@dataclass(frozen=True)
class Segment:
    """Adjacent dimensions of the input that become adjacent dimensions of the output."""

    inputs: range
    outputs: range


def make_views_explicit(exported: ExportedProgram) -> list[fx.Node]:
    """Replace every view over symbolic sizes, in place.

    Returns:
        The views that are left, because nothing is known about their sizes.
    """
    graph = exported.graph_module.graph
    left = []
    for node in list(graph.nodes):
        if node.target not in _VIEWS:
            continue
        before, after = node.args[0].meta["val"].shape, node.meta["val"].shape
        if not any(isinstance(size, torch.SymInt) for size in (*before, *after)):
            continue
        found = segments(before, after)
        if found is None:
            left.append(node)
            continue
        with graph.inserting_before(node):
            result = _merged_and_split(graph, node.args[0], node.args[1], found)
        node.replace_all_uses_with(result)
        graph.erase_node(node)
    exported.graph_module.recompile()
    return left


def segments(before: Sequence[Any], after: Sequence[Any]) -> list[Segment] | None:
    """How the sizes `before` become the sizes `after`, in the smallest steps.

    [B, T, 6, 4] -> [B * T, 4, 6] takes two: B, T -> B * T and 6, 4 -> 4, 6. None when no step
    can be shown to hold as many elements on both sides.
    """
    left, right = list(map(_expression, before)), list(map(_expression, after))
    found: list[Segment] = []
    i = j = 0
    while i < len(left) or j < len(right):
        step = _shortest(left[i:], right[j:])
        if step is None:
            return None
        found.append(Segment(range(i, i + step[0]), range(j, j + step[1])))
        i, j = i + step[0], j + step[1]
    return found


def _shortest(left: list[sympy.Expr], right: list[sympy.Expr]) -> tuple[int, int] | None:
    """How many leading sizes on each side have the same product; fewest first."""
    counts = sorted(
        ((m, n) for m in range(len(left) + 1) for n in range(len(right) + 1) if m + n), key=sum
    )
    for m, n in counts:
        if sympy.expand(math.prod(left[:m]) - math.prod(right[:n])) == 0:
            return m, n
    return None


def _expression(size: int | torch.SymInt) -> sympy.Expr:
    return size.node.expr if isinstance(size, torch.SymInt) else sympy.Integer(size)


def _merged_and_split(
    graph: fx.Graph, source: fx.Node, sizes: Sequence[Any], found: list[Segment]
) -> fx.Node:
    """One operator per segment that changes something, the last one first: the dimensions in
    front of it still have their places."""
    value = source
    for segment in reversed(found):
        for target, args in _steps(segment, sizes):
            made = graph.call_function(target, (value, *args))
            fake = value.meta["val"]
            with fake.fake_mode:
                taken = fx.map_arg(args, lambda n: n.meta["val"])
                made.meta["val"] = target(fake, *taken)
            value = made
    return value


def _steps(segment: Segment, sizes: Sequence[Any]) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    at, count = segment.inputs.start, len(segment.inputs)
    if not segment.outputs:
        yield torch.ops.aten.squeeze.dim, (at,)
    if not segment.inputs:
        yield torch.ops.aten.unsqueeze.default, (at,)
    if count > 1 and segment.outputs:
        yield _FLATTEN, (at, segment.inputs.stop - 1)
    if count and len(segment.outputs) > 1:
        yield _UNFLATTEN, (at, [sizes[d] for d in segment.outputs])
