"""Look tokens up in the weight that the output head reads.

Before:
    t = aten.permute(head, [1, 0])       # head: weight [W, V], as products take it
    e = aten.embedding(t, ids)
    y = aten.linear(h, head_t)           # head_t: its transpose, made at compile time
After:
    e = aten.embedding(head_t, ids)
    y = aten.linear(h, head_t)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx

from effc.ir.passbase import PassStage
from effc.ir.pattern import Call, Match, Var
from effc.ir.rewriter import GraphRewriter
from effc.ir.rules import RewriteRule, RulePass
from effc.passes.normalize.fold_constants import TRANSPOSES
from effc.passes.raising.linear import no_matrix, transposed

aten = torch.ops.aten


class RaiseTransposedTable(RewriteRule):
    """Rows of W.T with W a weight: the table of a model whose head holds it the other way round."""

    name = "raise-transposed-table"
    patterns = (
        Call(
            ("aten.embedding.default",),
            (Call(TRANSPOSES, (Var("weight"),), name="turned"), Var("ids")),
        ),
    )

    def check(self, found: Match, root: fx.Node) -> str:
        """The table must be a matrix of the state with its two dimensions swapped."""
        weight, turned = found["weight"], found["turned"].meta["val"]
        if reason := no_matrix(weight):
            return reason
        swapped = turned.stride() == weight.meta["val"].stride()[::-1]
        return "" if swapped else "nothing is transposed"

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """The linear of the head reads the same transpose, so both are one weight."""
        table = transposed(rewriter, found["weight"])
        return rewriter.call(aten.embedding.default, table, found["ids"])


@dataclass(frozen=True)
class RaiseTable(RulePass):
    """Embeddings read tables as the weights lie, not turned at every call."""

    name: ClassVar[str] = "raise-table"
    stage: ClassVar[PassStage] = PassStage.RAISE
    after: ClassVar[tuple[str, ...]] = ("raise-linear",)
    rules: ClassVar[tuple[RewriteRule, ...]] = (RaiseTransposedTable(),)
    near: ClassVar[int] = 2
