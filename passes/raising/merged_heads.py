"""Keep batch and heads apart in attention that merges them.

Before:
    a = aten.view.default(q, [B * H, T, D])
    b = aten.transpose.int(aten.view.default(k, [B * H, S, D]), 1, 2)
    w = aten.softmax.int(aten.bmm.default(a, b), -1)
After:
    p = aten.matmul.default(q, aten.transpose.int(k, 2, 3))
    w = aten.flatten.using_ints(aten.softmax.int(p, -1), 0, 1)

The merging moves from the operands to the results, until it meets the one that takes it back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import fx

from effc.ir.passbase import PassStage, Semantics
from effc.ir.pattern import Call, Match, Var, op_name
from effc.ir.rewriter import GraphRewriter
from effc.ir.rules import RewriteRule, RulePass
from effc.passes.normalize.layouts import CancelReshapes, JoinPermutes
from effc.passes.normalize.shapes import (
    PERMUTES,
    RESHAPES,
    is_last,
    permutation,
    rank,
    same_sizes,
    shape,
)
from effc.passes.raising.scores import PRODUCTS, strip_scale

aten = torch.ops.aten

_MERGED = Call(RESHAPES, (Var("x"),), name="merged")
_OTHER = Call(RESHAPES, (Var("y"),), name="other")
_APART = "the first dimension is not batch and heads merged"
_ELEMENTWISE = (
    "aten.mul.Tensor",
    "aten.div.Tensor",
    "aten.to.dtype",
    "aten.softmax.int",
    "aten._softmax.default",
)


def _merges(merged: fx.Node, x: fx.Node) -> bool:
    """Whether [B, H, M, N] became [B * H, M, N]."""
    if rank(x) != 4 or rank(merged) != 3:
        return False
    return same_sizes(shape(x)[2:], shape(merged)[1:])


def _merge(rewriter: GraphRewriter, node: fx.Node) -> fx.Node:
    return rewriter.call(aten.flatten.using_ints, node, 0, 1)


class MergedProduct(RewriteRule):
    """A product per head needs no merging."""

    name = "merged-product"
    patterns = (
        Call(PRODUCTS, (_MERGED, _OTHER)),
        Call(
            ("aten.baddbmm.default",),
            (Call(RESHAPES, (Var("z"),), name="third"), _MERGED, _OTHER),
            ("beta", "alpha"),
        ),
    )

    def check(self, found: Match, root: fx.Node) -> str:
        """All factors must be merged of the same batch and heads."""
        pairs = (("merged", "x"), ("other", "y"), ("third", "z"))
        for merged, source in pairs[: 3 if "z" in found.bound else 2]:
            if not _merges(found[merged], found[source]):
                return _APART
            if not same_sizes(shape(found[source])[:2], shape(found["x"])[:2]):
                return "the factors are of different batches or heads"
        return "" if root.kwargs.get("beta", 1) == 1 else "the summand is scaled"

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """Multiply first, merge then."""
        product = rewriter.call(aten.matmul.default, found["x"], found["y"])
        if "z" in found.bound:
            if (alpha := root.kwargs.get("alpha", 1)) != 1:
                product = rewriter.call(aten.mul.Tensor, product, alpha)
            product = rewriter.call(aten.add.Tensor, found["z"], product)
        return _merge(rewriter, product)


class MergedTurn(RewriteRule):
    """A transpose of the last two dimensions does not see the first."""

    name = "merged-turn"
    patterns = (Call(PERMUTES, (_MERGED,)),)

    def check(self, found: Match, root: fx.Node) -> str:
        """Only the last two dimensions."""
        if not _merges(found["merged"], found["x"]):
            return _APART
        return "" if permutation(root) == [0, 2, 1] else "the merged dimension moves"

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """Transpose first, merge then."""
        return _merge(rewriter, rewriter.call(aten.transpose.int, found["x"], 2, 3))


class MergedElementwise(RewriteRule):
    """Scaling, converting and a softmax over the last dimension do not see the first."""

    name = "merged-elementwise"
    patterns = (Call(_ELEMENTWISE, (_MERGED,), ("dtype",)),)

    def check(self, found: Match, root: fx.Node) -> str:
        """No second tensor, and no other dimension."""
        if not _merges(found["merged"], found["x"]):
            return _APART
        if len(root.all_input_nodes) > 1:
            return "another tensor takes part"
        is_softmax = "softmax" in op_name(root)
        return (
            "the softmax runs over another dimension"
            if is_softmax and not is_last(root.args[1], root)
            else ""
        )

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """The same call first, merge then."""
        args: list[Any] = [found["x"], *root.args[1:]]
        if "softmax" in op_name(root):
            args[1] = -1
        return _merge(rewriter, rewriter.call(root.target, *args, **root.kwargs))  # type: ignore[arg-type]


class MergedSum(RewriteRule):
    """A sum of merged scores and a mask, one per head or one per batch and head."""

    name = "merged-sum"
    patterns = (Call(("aten.add.Tensor",), (_MERGED, Var("y")), commutative=True),)

    def check(self, found: Match, root: fx.Node) -> str:
        """Scores are a product; the mask has their first dimension."""
        x, y = found["x"], found["y"]
        if not _merges(found["merged"], x) or op_name(strip_scale(x)[1]) not in PRODUCTS:
            return _APART
        if rank(y) != 3 or not same_sizes(shape(y)[:1], shape(root)[:1]):
            return "the mask has not as many parts as there are batches and heads"
        return "" if isinstance(shape(x)[1], int) else "the number of heads is not known"

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """Take the mask apart, add, merge then."""
        x = found["x"]
        apart = rewriter.call(aten.unflatten.int, found["y"], 0, [-1, shape(x)[1]])
        return _merge(rewriter, rewriter.call(aten.add.Tensor, x, apart))


@dataclass(frozen=True)
class RaiseMergedHeads(RulePass):
    """Attention over [B * H, T, D] becomes attention over [B, H, T, D]."""

    name: ClassVar[str] = "raise-merged-heads"
    stage: ClassVar[PassStage] = PassStage.RAISE
    semantics: ClassVar[Semantics] = Semantics.ROUNDING
    rules: ClassVar[tuple[RewriteRule, ...]] = (
        MergedProduct(),
        MergedTurn(),
        MergedElementwise(),
        MergedSum(),
        CancelReshapes(),
        JoinPermutes(),
    )
    near: ClassVar[int] = 3
