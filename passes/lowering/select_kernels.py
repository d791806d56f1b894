"""Choose one kernel per operator, and write down why.

Before:
    y = effc.quantized_linear(x, codes, scale, ...)
After:
    y = effc.quantized_linear(x, codes, scale, ...)      # kernel=triton
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import fx

from effc.diagnostics import KernelError
from effc.ir.journal import Journal
from effc.ir.passbase import Outcome, Pass, PassStage
from effc.ir.pattern import op_name
from effc.ir.program import Program
from effc.kernels.registry import REFERENCE, candidates


@dataclass(frozen=True)
class SelectKernels(Pass):
    """Bind each `effc::` operator to an implementation.

    The reference is an ordinary candidate where nothing faster is registered. A registered kernel
    that cannot serve a call is a fallback, and an error unless allowed.

    Attributes:
        device: "cpu" or "cuda".
        allow_reference: fall back to the reference with a reason instead of an error.
    """

    name: ClassVar[str] = "select-kernels"
    stage: ClassVar[PassStage] = PassStage.LOWER
    after: ClassVar[tuple[str, ...]] = ("bufferize",)

    device: str = "cpu"
    allow_reference: bool = False

    def call(self, program: Program, journal: Journal) -> list[Outcome]:
        """One outcome per operator call; skipped where the same choice was made before."""
        outcomes = []
        for stage in program.stages.values():
            rewriter = self.rewriter(program, stage, journal)
            for node in stage.graph.nodes:
                if op_name(node).startswith("effc."):
                    kernel, reason = self.choose(node)
                    status = "skipped" if node.meta.get("kernel") == kernel else "applied"
                    rewriter.mark(node, "kernel", kernel)
                    outcomes.append(Outcome(rewriter.graph_place(node), status, reason))
        return outcomes

    def choose(self, node: fx.Node) -> tuple[str, str]:
        """The kernel of a call and what spoke against better ones.

        Raises:
            KernelError: E0501 if every registered kernel refuses and no fallback is allowed.
        """
        op = op_name(node).split(".")[1]
        found = candidates(op, self.device)
        refusals = []
        for entry in found:
            support = entry.check(_arguments(node), self.device)
            if support.ok:
                return entry.name, "; ".join(refusals)
            refusals.append(f"{entry.name}: {support.reason}")
        reason = "; ".join(refusals)
        if found and not self.allow_reference:
            raise KernelError(
                "E0501",
                f"no kernel for effc::{op} on {self.device} can serve this call ({reason})",
                where=str(node.meta.get("path") or node.name),
                help="set target.allow_reference = true to run the slow reference instead",
            )
        return REFERENCE, reason


def _arguments(node: fx.Node) -> dict[str, object]:
    """Arguments by name, tensors as fake values."""
    schema = node.target._schema  # type: ignore[union-attr]
    values = fx.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
    named = {a.name: v for a, v in zip(schema.arguments, values[0], strict=False)}
    return {**named, **values[1]}
