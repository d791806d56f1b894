"""Raise the parts of a layer norm to `aten.layer_norm`.

Before:
    d = aten.sub.Tensor(x, aten.mean.dim(x, [-1], True))
    s = aten.mean.dim(aten.pow.Tensor_Scalar(d, 2), [-1], True)
    n = aten.mul.Tensor(d, aten.rsqrt.default(aten.add.Tensor(s, 1e-05)))
    y = aten.add.Tensor(aten.mul.Tensor(n, weight), bias)
After:
    y = aten.layer_norm.default(x, [W], weight, bias, 1e-05)
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
from effc.passes.normalize.shapes import is_last, rank, same_shape, shape

aten = torch.ops.aten

_MEAN = Call(("aten.mean.dim",), (Var("x"), Const("dims"), True))
# The difference is often computed twice; both are the same by what they are made of.
_DIFFERENCE = Call(("aten.sub.Tensor",), (Var("x"), _MEAN))
_SQUARES = Call(("aten.pow.Tensor_Scalar",), (_DIFFERENCE, 2))
_VARIANCE = Call(("aten.mean.dim",), (_SQUARES, Const("dims"), True))
_ROOT = Call(("aten.rsqrt.default",), (Call(("aten.add.Tensor",), (_VARIANCE, Const("eps"))),))
_NORM = Call(
    ("aten.layer_norm.default",),
    (Var("x"), Const("sizes"), None, None, Const("eps")),
    name="norm",
)
_WEIGHTED = Call(
    ("aten.layer_norm.default",),
    (Var("x"), Const("sizes"), Var("weight"), None, Const("eps")),
    name="norm",
)


class RaisePlainNorm(RewriteRule):
    """(x - mean) / sqrt(variance + eps)."""

    name = "raise-plain-norm"
    patterns = (Call(("aten.mul.Tensor",), (_DIFFERENCE, _ROOT), commutative=True),)

    def check(self, found: Match, root: fx.Node) -> str:
        """Over the last dimension, of a width that is known."""
        dims, x = found["dims"], found["x"]
        if not isinstance(dims, list) or len(dims) != 1 or not is_last(dims[0], x):
            return f"the mean runs over {dims}, not over the last dimension"
        if not isinstance(shape(x)[-1], int):
            return "the width is only known at run time"
        if x.meta["val"].dtype == torch.float64 or root.meta["val"].dtype != x.meta["val"].dtype:
            return "the norm is not computed in the type of its input"
        return ""

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """A norm without weight and bias; they join it later."""
        sizes = [shape(found["x"])[-1]]
        return rewriter.call(
            aten.layer_norm.default, found["x"], sizes, None, None, float(found["eps"])
        )


class JoinWeight(RewriteRule):
    """A norm times a weight vector."""

    name = "join-weight"
    patterns = (Call(("aten.mul.Tensor",), (_NORM, Var("weight")), commutative=True),)

    def check(self, found: Match, root: fx.Node) -> str:
        """A vector of the state, and no other reader of the plain norm."""
        return _no_part(found["norm"], found["weight"], root)

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """The same norm with its weight."""
        x, sizes, _, _, *rest = found["norm"].args
        return rewriter.call(aten.layer_norm.default, x, sizes, found["weight"], None, *rest)


class JoinBias(RewriteRule):
    """A weighted norm plus a bias vector."""

    name = "join-bias"
    patterns = (Call(("aten.add.Tensor",), (_WEIGHTED, Var("bias")), commutative=True),)

    def check(self, found: Match, root: fx.Node) -> str:
        """A vector of the state, and no other reader of the norm."""
        return _no_part(found["norm"], found["bias"], root)

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """The same norm with its bias."""
        x, sizes, weight, _, *rest = found["norm"].args
        return rewriter.call(aten.layer_norm.default, x, sizes, weight, found["bias"], *rest)


def _no_part(norm: fx.Node, vector: fx.Node, root: fx.Node) -> str:
    """Why a factor or summand is no weight or bias of a norm."""
    if vector.op != "get_attr" or rank(vector) != 1 or shape(vector)[0] != shape(norm)[-1]:
        return f"{vector.name} is no weight vector"
    if len(norm.users) > 1:
        return "the norm has other readers"
    dtypes = {node.meta["val"].dtype for node in (norm, vector, root)}
    return (
        "" if len(dtypes) == 1 and same_shape(norm, root) else f"{vector.name} is of another type"
    )


@dataclass(frozen=True)
class RaiseLayerNorm(RulePass):
    """Decomposed layer norms become the operator."""

    name: ClassVar[str] = "raise-layer-norm"
    stage: ClassVar[PassStage] = PassStage.RAISE
    semantics: ClassVar[Semantics] = Semantics.ROUNDING
    after: ClassVar[tuple[str, ...]] = ("raise-mean-squares",)
    rules: ClassVar[tuple[RewriteRule, ...]] = (RaisePlainNorm(), JoinWeight(), JoinBias())
