"""Raise the parts of a root-mean-square norm to `effc::rms_norm`.

Before:
    s = aten.mean.dim(aten.pow.Tensor_Scalar(x, 2), [-1], True)
    n = aten.mul.Tensor(x, aten.rsqrt.default(aten.add.Tensor(s, 1e-06)))
    y = aten.mul.Tensor(weight, n)
After:
    y = effc.rms_norm(x, weight, 1e-06, True)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import fx

from effc.ir.passbase import PassStage
from effc.ir.pattern import CASTS, Call, Cast, Const, Match, Var, op_name
from effc.ir.rewriter import GraphRewriter
from effc.ir.rules import RewriteRule, RulePass

_X = Cast(Var("x"))
_MEAN = Call(("aten.mean.dim",), (Call(("aten.pow.Tensor_Scalar",), (_X, 2)), Const("dims"), True))
_SUM = Call(("aten.add.Tensor",), (_MEAN, Const("eps")))


def _product(inner: Call) -> Call:
    """The weight times the normalized value."""
    root = Call(("aten.rsqrt.default",), (inner,))
    normal = Call(("aten.mul.Tensor",), (_X, root), commutative=True, name="normal")
    args = (Cast(normal), Cast(Var("weight")))
    return Call(("aten.mul.Tensor",), args, commutative=True, name="product")


# Some exporters drop an epsilon that is too small for them to see.
_PRODUCTS = (_product(_SUM), _product(_MEAN))


class RaiseRmsNorm(RewriteRule):
    """weight * round(normal), or round(weight * normal)."""

    name = "raise-rms-norm"
    patterns = (*(Call(CASTS, (p,), keywords=("dtype",)) for p in _PRODUCTS), *_PRODUCTS)

    def check(self, found: Match, root: fx.Node) -> str:
        """The last dimension, a weight vector, and one of the two ways to round."""
        value, weight = found["x"].meta["val"], found["weight"]
        if found["dims"] not in ([-1], [value.dim() - 1]):
            return f"the mean runs over {found['dims']}, not over the last dimension"
        if weight.op != "get_attr" or weight.meta["val"].dim() != 1:
            return f"{weight.name} is no weight vector"
        if weight.meta["val"].shape[0] != value.shape[-1]:
            return "the weight has another width"
        if found["normal"].meta["val"].dtype != torch.float32:
            return "the norm is not computed in fp32"
        return _rounding(found, root)[1]

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """The rounding order is part of the meaning."""
        first, _ = _rounding(found, root)
        eps = float(found.bound.get("eps", 0.0))
        return rewriter.call(
            torch.ops.effc.rms_norm.default, found["x"], found["weight"], eps, first
        )


def _rounding(found: Match, root: fx.Node) -> tuple[bool, str]:
    """Whether the normalized value is rounded before the weight; a reason if neither way fits."""
    product, narrow = found["product"], found["x"].meta["val"].dtype
    result, factor = root.meta["val"].dtype, _factor(found)
    if root is not product:
        once = factor == product.meta["val"].dtype == torch.float32 and result == narrow
        return False, "" if once else "the product is rounded on the way"
    if factor != narrow:
        return True, f"the result stays in {result} although the input is {narrow}"
    fits = result == torch.promote_types(narrow, found["weight"].meta["val"].dtype)
    return True, "" if fits else "the weight is rounded before it multiplies"


def _factor(found: Match) -> torch.dtype:
    """The type in which the normalized value meets the weight."""
    args = (a for a in found["product"].args if isinstance(a, fx.Node))
    return next(a.meta["val"].dtype for a in args if _strip(a) is found["normal"])


def _strip(node: fx.Node) -> fx.Node:
    while op_name(node) in CASTS:
        node = node.args[0]  # type: ignore[assignment]
    return node


@dataclass(frozen=True)
class RaiseNorms(RulePass):
    """Decomposed norms become the canonical operator."""

    name: ClassVar[str] = "raise-norms"
    stage: ClassVar[PassStage] = PassStage.RAISE
    after: ClassVar[tuple[str, ...]] = ("raise-layer-norm", "raise-mean-squares")
    rules: ClassVar[tuple[RewriteRule, ...]] = (RaiseRmsNorm(),)
