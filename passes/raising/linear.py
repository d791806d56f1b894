"""Raise matrix products with a weight to `aten.linear`.

Before:
    y = aten.addmm(bias, aten.view(x, [B * T, W]), weight)     # GPT-2's Conv1D: weight [W, out]
    z = aten.matmul(h, aten.numpy_T(table))                    # logits from the embedding
After:
    w = weights["c_attn.weight/t"]                             # [out, W]
    y = aten.linear(aten.view(x, [B * T, W]), w, bias)
    z = aten.linear(h, table)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx

from effc.ir.passbase import PassStage, Semantics
from effc.ir.pattern import Call, Const, ListOf, Match, Var
from effc.ir.rewriter import GraphRewriter
from effc.ir.rules import Lookalike, RewriteRule, RulePass
from effc.passes.normalize.fold_constants import TRANSPOSES

aten = torch.ops.aten
_PRODUCTS = ("aten.mm.default", "aten.matmul.default")


class RaiseTransposedProduct(RewriteRule):
    """x @ W.T (+ b) with W a weight, which stays the one it shares with others."""

    name = "raise-transposed-product"
    _turned = Call(TRANSPOSES, (Var("weight"),), name="turned")
    patterns = (
        Call(("aten.addmm.default",), (Var("bias"), Var("x"), _turned)),
        Call(_PRODUCTS, (Var("x"), _turned)),
    )

    def check(self, found: Match, root: fx.Node) -> str:
        """The right factor must be a matrix of the state with its two dimensions swapped."""
        weight, turned = found["weight"], found["turned"].meta["val"]
        if reason := no_matrix(weight):
            return reason
        value = weight.meta["val"]
        swapped = (value.shape[::-1], value.stride()[::-1])
        return "" if (turned.shape, turned.stride()) == swapped else "nothing is transposed"

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """A linear is defined with the transpose."""
        return rewriter.call(
            aten.linear.default, found["x"], found["weight"], found.bound.get("bias")
        )


class RaiseWeightProduct(RewriteRule):
    """x @ W (+ b) with W a weight."""

    name = "raise-weight-product"
    patterns = (
        Call(("aten.addmm.default",), (Var("bias"), Var("x"), Var("weight"))),
        Call(_PRODUCTS, (Var("x"), Var("weight"))),
    )
    lookalikes = (
        Lookalike(
            Call(("aten.einsum.default",), (Const("equation"), ListOf((Var("x"), Var("weight"))))),
            "an einsum with a weight is not raised to a linear, so no rule can name it; "
            "write it as torch.nn.functional.linear",
            lambda found: found["weight"].op == "get_attr",
        ),
    )

    def check(self, found: Match, root: fx.Node) -> str:
        """The right factor must be a matrix of the state."""
        return no_matrix(found["weight"])

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """Transpose the weight once, at compile time."""
        return rewriter.call(
            aten.linear.default,
            found["x"],
            transposed(rewriter, found["weight"]),
            found.bound.get("bias"),
        )


def transposed(rewriter: GraphRewriter, weight: fx.Node) -> fx.Node:
    """The transpose of a weight, made once, at compile time."""
    name = f"{weight.target}/t"
    source = rewriter.program.weights[str(weight.target)]
    if name not in rewriter.program.weights:
        shape = (source.shape[1], source.shape[0])
        origin = f"transpose of {source.origin}"
        rewriter.add_weight(
            name, source.map(lambda w: w.t().contiguous(), shape=shape, origin=origin)
        )
    return rewriter.weight(name)


def no_matrix(weight: fx.Node) -> str:
    if weight.op != "get_attr":
        return f"the right factor {weight.name} is computed, not a weight"
    if len(weight.meta["val"].shape) != 2:
        return f"the right factor {weight.name} is no matrix"
    return ""


@dataclass(frozen=True)
class RaiseLinear(RulePass):
    """Matrix products with a weight become linears."""

    name: ClassVar[str] = "raise-linear"
    stage: ClassVar[PassStage] = PassStage.RAISE
    semantics: ClassVar[Semantics] = Semantics.ROUNDING
    after: ClassVar[tuple[str, ...]] = ("raise-attention-products",)
    rules: ClassVar[tuple[RewriteRule, ...]] = (RaiseTransposedProduct(), RaiseWeightProduct())
    near: ClassVar[int] = 1
