"""Raise torch's fused attention to `effc::attention`.

Before:
    y = aten.scaled_dot_product_attention(q, k, v, None, 0.0, True, scale=0.125)
After:
    y = effc.attention(q, k, v, None, True, None, None, 0.125, None, None)
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


class RaiseFusedAttention(RewriteRule):
    """`scaled_dot_product_attention` says everything the canonical operator needs."""

    name = "raise-fused-attention"
    patterns = (
        Call(("aten.scaled_dot_product_attention.default",), (Var("q"), Var("k"), Var("v"))),
    )

    def check(self, found: Match, root: fx.Node) -> str:
        """Only inference, and only the four-dimensional form."""
        if _argument(root, 4, "dropout_p", 0.0):
            return "attention drops out at random"
        if any(len(found[name].meta["val"].shape) != 4 for name in "qkv"):
            return "queries, keys and values are not [B, H, T, D]"
        return ""

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """Carry over mask, causality and scale."""
        scale = _argument(root, 6, "scale", None)
        width = found["q"].meta["val"].shape[-1]
        return rewriter.call(
            torch.ops.effc.attention.default,
            found["q"],
            found["k"],
            found["v"],
            _argument(root, 3, "attn_mask", None),
            bool(_argument(root, 5, "is_causal", False)),
            None,
            None,
            float(scale) if scale is not None else float(width) ** -0.5,
            None,
            None,
        )


def _argument(node: fx.Node, index: int, name: str, default: object) -> object:
    if name in node.kwargs:
        return node.kwargs[name]
    return node.args[index] if len(node.args) > index else default


@dataclass(frozen=True)
class RaiseAttention(RulePass):
    """Every attention becomes the canonical operator."""

    name: ClassVar[str] = "raise-attention"
    stage: ClassVar[PassStage] = PassStage.RAISE
    semantics: ClassVar[Semantics] = Semantics.ROUNDING
    rules: ClassVar[tuple[RewriteRule, ...]] = (RaiseFusedAttention(),)
    near: ClassVar[int] = 1
