"""Subgraphs that are chosen or repeated at run time: stages that other stages run.

What a subgraph reads from the graph around it becomes an input of its stage; constants and
weights are simply there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import fx

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.values import Unsupported, Value
from effc.ir import sizes
from effc.ir.program import InputSpec, Stage, StageRef
from effc.ir.untrusted import RESERVED


def result(g: Builder, value: Value) -> Any:
    """A value as a stage returns it: nodes, lists of them, or None."""
    if isinstance(value, list):
        return [result(g, item) for item in value]
    return None if value is None else g.own(g.node(value))


def operands(builders: Iterable[Builder]) -> list[fx.Node]:
    """What several stages read from the graph that runs them, each of them once.

    Raises:
        Unsupported: higher-order operators pass on tensors and numbers only.
    """
    found = list(dict.fromkeys(node for b in builders for node in b.captured))
    if any("content" in node.meta for node in found):
        reason = "a sequence or optional, which is only known at run time, enters a subgraph"
        raise Unsupported(f"{reason} that is not known to run")
    return found


def finish(
    b: Builder,
    name: str,
    own_inputs: Sequence[fx.Node],
    captured: Sequence[fx.Node],
    results: Sequence[Value],
    *,
    predicate: bool = False,
) -> StageRef:
    """Make a stage of what a builder wrote.

    Args:
        b: from `Builder.branch`.
        name: of the stage; a number is appended.
        own_inputs: placeholders of `b` that come first.
        captured: nodes of the outer graph whose values come next.
        results: what the stage returns.
        predicate: the stage decides whether a loop goes on.
    """
    placeholders = [*own_inputs, *(b.own(node) for node in captured)]
    b.graph.output(tuple(result(b, value) for value in results))
    first = next(node for node in b.graph.nodes if node.op != "placeholder")
    for node in placeholders:
        first.prepend(node)
    for node in b.graph.nodes:
        if node.name in RESERVED:
            node._rename(f"{node.name}_")
    names = {str(s.node.expr): text for text, s in b._symbols.items()}
    specs = tuple(_spec(node, names) for node in placeholders)
    name = f"{name}_{len(b.stages)}"
    outputs = tuple(f"result_{i}" for i in range(len(results)))
    b.stages[name] = Stage(name, b.graph, specs, outputs)
    return StageRef(name, predicate)


def _spec(node: fx.Node, names: dict[str, str]) -> InputSpec:
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor):
        shape = tuple(sizes.of_value(size, names) for size in value.shape)
        return InputSpec(str(node.target), value.dtype, shape)
    if value is not None:
        return InputSpec(str(node.target), torch.int64, (), kind="size")
    return InputSpec(str(node.target), node.meta.get("dtype", torch.float32), ())


def merged(g: Builder, a: Any, b: Any) -> Any:
    """The fake value of what has one of two types; None where they have too little in common."""
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        return None
    if a.dtype != b.dtype or a.dim() != b.dim():
        return None
    same = [str(m) == str(n) for m, n in zip(a.shape, b.shape, strict=True)]
    if all(same):
        return a
    kept = [m if s and isinstance(m, int) else None for m, s in zip(a.shape, same, strict=True)]
    return g.unknown(a.dtype, kept)
