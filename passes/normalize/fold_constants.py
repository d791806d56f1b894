"""Compute at compile time what depends on weights alone.

Before:
    w = weights["layers.0.norm.weight"]
    a = aten.add.Tensor(w, 1.0)              # Gemma adds one to its norm weights
    b = aten.mul.Tensor(x, a)
After:
    a = weights["layers.0.norm.weight/add"]  # computed when the weight is loaded
    b = aten.mul.Tensor(x, a)

Only where the result is no larger than what it is computed from, so that no artifact grows. A
transposed matrix stays a view: folding it would make a copy of a weight that others share.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import fx

from effc.ir.journal import Journal
from effc.ir.passbase import Outcome, Pass, PassStage
from effc.ir.pattern import op_name
from effc.ir.program import Program, Stage
from effc.ir.rewriter import GraphRewriter
from effc.ir.weights import Weight

TRANSPOSES = (
    "aten.t.default",
    "aten.numpy_T.default",
    "aten.transpose.int",
    "aten.permute.default",
)


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Turn calls whose inputs are all weights into derived weights."""

    name: ClassVar[str] = "fold-constants"
    stage: ClassVar[PassStage] = PassStage.NORMALIZE
    after: ClassVar[tuple[str, ...]] = ("remove-no-ops",)

    def call(self, program: Program, journal: Journal) -> list[Outcome]:
        """One outcome per call of weights alone; skipped where folding would cost bytes."""
        outcomes = []
        for stage in program.stages.values():
            rewriter = self.rewriter(program, stage, journal)
            for node in list(stage.graph.nodes):
                if node._erased or not _is_constant(node):
                    continue
                growth = _growth(node)
                status = "skipped" if growth else "applied"
                outcomes.append(Outcome(rewriter.graph_place(node), status, growth))
                if not growth:
                    _fold(program, stage, rewriter, node)
        return outcomes


def _is_constant(node: fx.Node) -> bool:
    """Whether a call depends on weights alone; a transposed matrix is a view of one."""
    inputs = node.all_input_nodes
    value = node.meta.get("val")
    if node.op != "call_function" or not inputs or not isinstance(value, torch.Tensor):
        return False
    schema = getattr(node.target, "_schema", None)
    if schema is None or schema.is_mutable or any(n.op != "get_attr" for n in inputs):
        return False
    sizes = (*value.shape, *(s for n in inputs for s in n.meta["val"].shape))
    if any(isinstance(size, torch.SymInt) for size in sizes):
        return False
    return op_name(node) not in TRANSPOSES or value.dim() != 2


def _growth(node: fx.Node) -> str:
    """Why folding would cost bytes; empty when it does not."""
    needed = node.meta["val"].nbytes
    read = sum(n.meta["val"].nbytes for n in node.all_input_nodes)
    if needed <= read:
        return ""
    return f"{node.name} takes {needed} bytes and the weights it is computed from {read}"


def _fold(program: Program, stage: Stage, rewriter: GraphRewriter, node: fx.Node) -> None:
    source = str(node.all_input_nodes[0].target)
    name = _free_name(program, f"{source}/{node.target.overloadpacket.__name__}")  # type: ignore[union-attr]
    value = node.meta["val"]
    weight = Weight(
        tuple(value.shape), value.dtype, _computation(program, node), f"{node.target} of {source}"
    )
    rewriter.add_weight(name, weight)
    with rewriter.before(node):
        rewriter.replace(node, rewriter.weight(name))


def _computation(program: Program, node: fx.Node) -> Callable[[], torch.Tensor]:
    target: Any = node.target
    sources = {n: program.weights[str(n.target)] for n in node.all_input_nodes}
    args, kwargs = node.args, node.kwargs

    def compute() -> torch.Tensor:
        loaded = {n: weight.load() for n, weight in sources.items()}
        final_args, final_kwargs = fx.map_arg((args, kwargs), loaded.__getitem__)
        with torch.no_grad():
            return target(*final_args, **final_kwargs).contiguous()

    return compute


def _free_name(program: Program, name: str) -> str:
    if name not in program.weights:
        return name
    return next(f"{name}.{i}" for i in range(1, 10_000) if f"{name}.{i}" not in program.weights)
