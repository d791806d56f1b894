"""Raise matrix products with a weight to `aten.linear`.

Before:
    y = aten.addmm(bias, aten.view(x, [B * T, W]), weight)     # GPT-2's Conv1D: weight [W, out]
After:
    w = weights["c_attn.weight/t"]                             # [out, W]
    y = aten.linear(aten.view(x, [B * T, W]), w, bias)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx

from effc.ir.passbase import PassStage, Semantics
from effc.ir.pattern import Call, Match, Var, op_name
from effc.ir.rewriter import GraphRewriter
from effc.ir.rules import RewriteRule, RulePass

aten = torch.ops.aten


class RaiseWeightProduct(RewriteRule):
    """x @ W (+ b) with W a weight."""

    name = "raise-weight-product"
    patterns = (
        Call(("aten.addmm.default",), (Var("bias"), Var("x"), Var("weight"))),
        Call(("aten.mm.default", "aten.matmul.default"), (Var("x"), Var("weight"))),
    )

    def check(self, found: Match, root: fx.Node) -> str:
        """The right factor must be a matrix of the state."""
        weight = found["weight"]
        if weight.op != "get_attr":
            return f"the right factor {weight.name} is computed, not a weight"
        if len(weight.meta["val"].shape) != 2:
            return f"the right factor {weight.name} is no matrix"
        if op_name(root) == "aten.addmm.default" and root.kwargs:
            return "addmm scales its terms"
        return ""

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """Transpose the weight once, at compile time."""
        name = f"{found['weight'].target}/t"
        source = rewriter.program.weights[str(found["weight"].target)]
        if name not in rewriter.program.weights:
            shape = (source.shape[1], source.shape[0])
            origin = f"transpose of {source.origin}"
            rewriter.add_weight(
                name, source.map(lambda w: w.t().contiguous(), shape=shape, origin=origin)
            )
        return rewriter.call(
            aten.linear.default, found["x"], rewriter.weight(name), found.bound.get("bias")
        )


@dataclass(frozen=True)
class RaiseLinear(RulePass):
    """Matrix products with a weight become linears."""

    name: ClassVar[str] = "raise-linear"
    stage: ClassVar[PassStage] = PassStage.RAISE
    semantics: ClassVar[Semantics] = Semantics.ROUNDING
    rules: ClassVar[tuple[RewriteRule, ...]] = (RaiseWeightProduct(),)
    near: ClassVar[int] = 1
