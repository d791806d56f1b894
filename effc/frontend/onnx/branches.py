"""Subgraphs that are chosen or repeated at run time: stages that other stages run.

What a subgraph reads from the graph around it becomes an input of its stage; constants and
weights are simply there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import onnx_ir
import torch
from torch import fx

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.elements import torch_dtype
from effc.frontend.onnx.values import Content, Mismatch, Unsupported, Value
from effc.ir import sizes
from effc.ir.program import InputSpec, Stage, StageRef
from effc.ir.stage_calls import called
from effc.ir.untrusted import RESERVED


def inline(
    g: Builder, graph: onnx_ir.Graph, inputs: Sequence[Value], into: Builder | None = None
) -> list[Value]:
    """The outputs of a subgraph that is translated in place, or into another stage."""
    assert g.inline is not None, "the translator sets it"
    if len(inputs) != len(graph.inputs):
        raise Mismatch(f"a subgraph with {len(graph.inputs)} inputs is given {len(inputs)}")
    return g.inline(graph, inputs, into)


def content_of(value: Value) -> Content | None:
    """What is in a sequence or optional that is known at run time only, None for other values."""
    return value.meta.get("content") if isinstance(value, fx.Node) else None


def is_listlike(value: Value) -> bool:
    """Whether a value is a sequence or an optional: higher-order operators do not carry them."""
    return isinstance(value, list) or value is None or content_of(value) is not None


def nothing_yet(declared: onnx_ir.Value) -> torch.Tensor:
    """The results of a loop without a round, of the type that the file declares.

    Raises:
        Unsupported: it declares none.
    """
    if declared.dtype is None or declared.shape is None or not declared.shape.is_static():
        raise Unsupported("the type of a loop's result is not known, and there may be no round")
    shape = [0, *(int(size) for size in declared.shape.numpy())]
    return torch.empty(shape, dtype=torch_dtype(declared.dtype))


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
    if any(isinstance(node.meta.get("val"), torch.SymFloat) for node in found):
        raise Unsupported("a number with a fraction, no tensor, enters a subgraph")
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
    b.graph.eliminate_dead_code()
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


def reachable(stages: dict[str, Stage]) -> dict[str, Stage]:
    """The first stage and all that it runs, directly or not."""
    found: dict[str, Stage] = {}
    pending = [next(iter(stages))]
    while pending:
        name = pending.pop(0)
        if name not in found:
            found[name] = stages[name]
            pending += called(stages[name])
    return {name: stage for name, stage in stages.items() if name in found}


def forget(graph: fx.Graph) -> None:
    """Drop what is known of nodes without a type: it serves translation alone."""
    for node in graph.nodes:
        for key in ("content", "dtype", "rank", "open"):
            node.meta.pop(key, None)


def merged(g: Builder, a: Any, b: Any) -> Any:
    """The fake value of what has one of two types; None where they have too little in common."""
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        return None
    if a.dtype != b.dtype or a.dim() != b.dim():
        return None
    other = differing(a, b)
    if not other:
        return a
    kept = [None if d in other else size for d, size in enumerate(a.shape)]
    return g.unknown(a.dtype, kept)


def differing(a: torch.Tensor, b: torch.Tensor) -> list[int]:
    """The dimensions in which two fake tensors of one rank differ."""
    pairs = enumerate(zip(a.shape, b.shape, strict=True))
    return [d for d, (m, n) in pairs if str(m) != str(n)]


def holds(a: torch.Tensor, b: torch.Tensor | None, open_dims: Collection[int]) -> bool:
    """Whether a tensor like `b` is also like `a`, whose sizes in `open_dims` may be any."""
    if b is None or a.dtype != b.dtype or a.dim() != b.dim():
        return False
    return all(d in open_dims for d in differing(a, b))
