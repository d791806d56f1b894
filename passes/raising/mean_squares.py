"""Write the root of a mean of squares in one way.

Before:
    s = aten.mean.dim(aten.mul.Tensor(x, x), [-1], True)
    y = aten.div.Tensor(x, aten.sqrt.default(aten.add.Tensor(s, 1e-06)))
After:
    s = aten.mean.dim(aten.pow.Tensor_Scalar(x, 2), [-1], True)
    y = aten.mul.Tensor(x, aten.rsqrt.default(aten.add.Tensor(s, 1e-06)))

Norms are then recognized in this form alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx

from effc.ir.passbase import PassStage, Semantics
from effc.ir.pattern import Call, Const, Match, Var
from effc.ir.rewriter import GraphRewriter
from effc.ir.rules import RewriteRule, RulePass
from effc.passes.normalize.shapes import is_last, rank

aten = torch.ops.aten

_DIMS = Const("dims")
_SQUARES = Call(("aten.pow.Tensor_Scalar",), (Var("x"), 2))
_SUM = Call(
    ("aten.add.Tensor",),
    (Call(("aten.mean.dim",), (_SQUARES, _DIMS, True)), Const("eps")),
    name="sum",
)
_VARIANCE = Call(
    ("aten.add.Tensor",),
    (
        Call(
            ("aten.var.dim", "aten.var.correction"),
            (Var("x"), _DIMS),
            ("correction", "keepdim", "unbiased"),
            name="variance",
        ),
        Const("eps"),
    ),
    name="sum",
)
# Some exporters drop an epsilon that is too small for them to see.
_MEAN = Call(("aten.mean.dim",), (_SQUARES, _DIMS, True), name="sum")
_ROOTS = tuple(Call(("aten.sqrt.default",), (inner,)) for inner in (_SUM, _MEAN))


class SquareAsPower(RewriteRule):
    """A value times itself is its second power."""

    name = "square-as-power"
    patterns = (
        Call(
            ("aten.mean.dim",),
            (Call(("aten.mul.Tensor",), (Var("x"), Var("x"))), _DIMS),
            ("dtype",),
        ),
        Call(("aten.mean.dim",), (Call(("aten.square.default",), (Var("x"),)), _DIMS), ("dtype",)),
    )

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """The mean of the power."""
        squares = rewriter.call(aten.pow.Tensor_Scalar, found["x"], 2)
        return rewriter.call(aten.mean.dim, squares, *root.args[1:], **root.kwargs)


class BiasedVariance(RewriteRule):
    """A variance that divides by the count is a mean of squares of differences."""

    name = "biased-variance"
    patterns = (
        Call(("aten.sqrt.default",), (_VARIANCE,), name="root"),
        Call(("aten.rsqrt.default",), (_VARIANCE,), name="root"),
    )

    def check(self, found: Match, root: fx.Node) -> str:
        """Over the last dimension, which stays, without Bessel's correction."""
        node = found["variance"]
        x = found["x"]
        dims = found["dims"]
        if not isinstance(dims, list) or len(dims) != 1 or not is_last(dims[0], x):
            return "the variance does not run over the last dimension"
        if rank(node) != rank(x):
            return "the variance drops its dimension"
        return "" if _is_biased(node) else "the variance divides by one less than the count"

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """mean((x - mean(x))^2)."""
        x, dims = found["x"], found["dims"]
        difference = rewriter.call(aten.sub.Tensor, x, rewriter.call(aten.mean.dim, x, dims, True))
        squares = rewriter.call(aten.pow.Tensor_Scalar, difference, 2)
        mean = rewriter.call(aten.mean.dim, squares, dims, True)
        return rewriter.call(root.target, rewriter.call(aten.add.Tensor, mean, found["eps"]))  # type: ignore[arg-type]


def _is_biased(variance: fx.Node) -> bool:
    """Whether the sum of squares is divided by the count."""
    if "correction" in variance.kwargs:
        return variance.kwargs["correction"] == 0
    unbiased = variance.args[2] if len(variance.args) > 2 else variance.kwargs.get("unbiased", True)
    return str(variance.target) == "aten.var.dim" and not unbiased


class RootAsReciprocal(RewriteRule):
    """One over a root, however it is written."""

    name = "root-as-reciprocal"
    patterns = (
        *(Call(("aten.reciprocal.default",), (root,)) for root in _ROOTS),
        *(Call(("aten.pow.Tensor_Scalar",), (root, -1)) for root in _ROOTS),
        *(Call(("aten.pow.Tensor_Scalar",), (inner, -0.5)) for inner in (_SUM, _MEAN)),
    )

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """The operator that computes it at once."""
        return rewriter.call(aten.rsqrt.default, found["sum"])


class QuotientAsProduct(RewriteRule):
    """A division by a root is a product with its reciprocal."""

    name = "quotient-as-product"
    patterns = tuple(Call(("aten.div.Tensor",), (Var("value"), root)) for root in _ROOTS)

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """Multiply."""
        reciprocal = rewriter.call(aten.rsqrt.default, found["sum"])
        return rewriter.call(aten.mul.Tensor, found["value"], reciprocal)


@dataclass(frozen=True)
class RaiseMeanSquares(RulePass):
    """Roots of means of squares get the form that norms are known by."""

    name: ClassVar[str] = "raise-mean-squares"
    stage: ClassVar[PassStage] = PassStage.RAISE
    semantics: ClassVar[Semantics] = Semantics.ROUNDING
    rules: ClassVar[tuple[RewriteRule, ...]] = (
        SquareAsPower(),
        BiasedVariance(),
        RootAsReciprocal(),
        QuotientAsProduct(),
    )
