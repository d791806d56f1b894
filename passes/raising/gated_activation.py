"""Raise the gate of a feed-forward layer to `effc::gated_activation`.

Before:
    y = aten.mul.Tensor(aten.silu.default(gate), up)
After:
    y = effc.gated_activation(gate, up, "silu")
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx

from effc.ir.passbase import PassStage
from effc.ir.pattern import Call, Match, Var, op_name
from effc.ir.rewriter import GraphRewriter
from effc.ir.rules import Lookalike, RewriteRule, RulePass
from effc.passes.raising.scores import strip_scale

_NAMES = {
    "aten.silu.default": "silu",
    "aten.gelu.default": "gelu",
    "aten.relu.default": "relu",
    "aten.sigmoid.default": "sigmoid",
}


_OTHERS = tuple(
    f"aten.{name}.default"
    for name in ("mish", "elu", "celu", "selu", "relu6", "leaky_relu", "hardswish", "softplus")
)


class RaiseGate(RewriteRule):
    """act(gate) * up, both as wide as the layer."""

    name = "raise-gate"
    patterns = (
        Call(
            ("aten.mul.Tensor",),
            (Call(tuple(_NAMES), (Var("gate"),), ("approximate",), name="act"), Var("up")),
            commutative=True,
        ),
    )
    lookalikes = (
        Lookalike(
            Call(("aten.mul.Tensor",), (Call(_OTHERS, (Var("gate"),)), Var("up")), (), True),
            "effc.gated_activation knows silu, gelu, relu and sigmoid, not this activation",
        ),
    )

    def check(self, found: Match, root: fx.Node) -> str:
        """Gate and value must be two activations of one shape."""
        gate, up = found["gate"], found["up"]
        if up.op == "get_attr" or up in (strip_scale(gate)[1], found["act"]):
            return "the other factor is no second activation"
        if gate.meta["val"].shape != up.meta["val"].shape:
            return "gate and value have different shapes"
        return ""

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """Name the activation."""
        act = found["act"]
        name = _NAMES[op_name(act)]
        if name == "gelu" and act.kwargs.get("approximate") == "tanh":
            name = "gelu_tanh"
        return rewriter.call(
            torch.ops.effc.gated_activation.default, found["gate"], found["up"], name
        )


@dataclass(frozen=True)
class RaiseGatedActivation(RulePass):
    """Gated feed-forward layers become recognizable."""

    name: ClassVar[str] = "raise-gated-activation"
    stage: ClassVar[PassStage] = PassStage.RAISE
    after: ClassVar[tuple[str, ...]] = ("raise-activations",)
    rules: ClassVar[tuple[RewriteRule, ...]] = (RaiseGate(),)
    near: ClassVar[int] = 2
