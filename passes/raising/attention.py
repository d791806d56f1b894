"""Raise torch's fused attention to `effc::attention`.

Before:
    y = aten.scaled_dot_product_attention(q, k, v, None, 0.0, True, scale=0.125)
After:
    y = effc.attention(q, k, v, None, True, None, None, 0.125, None, None)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

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
        Call(
            ("aten.scaled_dot_product_attention.default",),
            (Var("q"), Var("k"), Var("v")),
            keywords=("attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa"),
        ),
    )

    def check(self, found: Match, root: fx.Node) -> str:
        """Only inference, only the four-dimensional form, and causality that means the same."""
        if _argument(root, 4, "dropout_p", 0.0):
            return "attention drops out at random"
        q, k, v = (found[name].meta["val"] for name in "qkv")
        if any(len(value.shape) != 4 for value in (q, k, v)):
            return "queries, keys and values are not [B, H, T, D]"
        if q.dtype == torch.float64:
            return "attention in float64 would be computed in fp32"
        if len({str(value.shape[0]) for value in (q, k, v)}) > 1:
            return "queries and keys are of different batches"
        if _argument(root, 5, "is_causal", False) and str(q.shape[2]) != str(k.shape[2]):
            # torch aligns the first query with the first key, the operator the last with the last.
            return "causal attention over keys of another sequence"
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


def _argument(node: fx.Node, index: int, name: str, default: Any) -> Any:
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
