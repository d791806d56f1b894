"""Let a linear add its bias.

Before:
    y = aten.add.Tensor(aten.linear.default(x, weight), bias)
After:
    y = aten.linear.default(x, weight, bias)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx

from effc.ir.passbase import PassStage, Semantics
from effc.ir.pattern import Call, Match, Var
from effc.ir.rewriter import GraphRewriter
from effc.ir.rules import RewriteRule, RulePass
from effc.passes.normalize.shapes import rank, same_shape, shape

aten = torch.ops.aten

_LINEAR = Call(("aten.linear.default",), (Var("x"), Var("weight")), name="linear")


class JoinBias(RewriteRule):
    """x @ W.T + b, b a vector of the state."""

    name = "join-linear-bias"
    patterns = (Call(("aten.add.Tensor",), (_LINEAR, Var("bias")), commutative=True),)

    def check(self, found: Match, root: fx.Node) -> str:
        """A bias as wide as the linear, which has none yet and no other reader."""
        linear, bias = found["linear"], found["bias"]
        if bias.op != "get_attr" or rank(bias) != 1 or shape(bias)[0] != shape(linear)[-1]:
            return f"{bias.name} is no bias"
        if linear.all_input_nodes != [found["x"], found["weight"]] or len(linear.users) > 1:
            return "the linear has a bias or other readers"
        dtypes = {node.meta["val"].dtype for node in (linear, bias, root)}
        return (
            "" if len(dtypes) == 1 and same_shape(linear, root) else "the bias is of another type"
        )

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """The linear with its bias."""
        return rewriter.call(aten.linear.default, found["x"], found["weight"], found["bias"])


@dataclass(frozen=True)
class RaiseBias(RulePass):
    """Biases join the linears that they are added to."""

    name: ClassVar[str] = "raise-bias"
    stage: ClassVar[PassStage] = PassStage.RAISE
    semantics: ClassVar[Semantics] = Semantics.ROUNDING
    after: ClassVar[tuple[str, ...]] = ("raise-linear",)
    rules: ClassVar[tuple[RewriteRule, ...]] = (JoinBias(),)
