"""Raise attention that is written as products around a softmax to `effc::attention`.

Before:
    s = aten.matmul.default(aten.mul.Tensor(q, 0.5), aten.mul.Tensor(kt, 0.5))   # kt: [B, H, D, S]
    w = aten.softmax.int(aten.add.Tensor(s, mask), -1)
    y = aten.matmul.default(aten.where.ScalarSelf(aten.isnan.default(w), 0.0, w), v)
After:
    k = aten.permute.default(kt, [0, 1, 3, 2])
    y = effc.attention(q, k, v, mask, False, None, None, 0.25, None, None)

Masks stay tensors: what is added is added, what is filled with -inf becomes a boolean mask, what
is filled with a finite number becomes one that adds it, so that a query that sees nothing still
sees all keys alike. Where all scores of a query are -inf the softmax gives NaN and the operator
zeros; guards against that NaN go away.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import fx

from effc.ir.passbase import PassStage, Semantics
from effc.ir.pattern import Call, Cast, Const, Match, Var
from effc.ir.rewriter import GraphRewriter
from effc.ir.rules import RewriteRule, RulePass
from effc.passes.normalize.shapes import is_last, permute, rank, same_sizes, shape
from effc.passes.raising.scores import (
    PRODUCTS,
    Added,
    Hidden,
    Scores,
    read_scores,
    strip_scale,
)
from effc.passes.raising.sinks import as_vector, read_softmaxed

aten = torch.ops.aten

_SOFTMAX = Call(
    ("aten.softmax.int", "aten._softmax.default"),
    (Var("scores"), Const("dim")),
    ("dtype",),
    name="softmax",
)
_PLAIN = Cast(_SOFTMAX)
_IS_NAN = Call(("aten.isnan.default",), (_PLAIN,))
# Weights of queries that see nothing are NaN; what people write against it.
_WEIGHTS = (
    _PLAIN,
    Cast(Call(("aten.where.ScalarSelf",), (_IS_NAN, 0, _PLAIN))),
    Cast(Call(("aten.masked_fill.Scalar",), (_PLAIN, _IS_NAN, 0))),
    Cast(Call(("aten.nan_to_num.default",), (_PLAIN, 0), ("nan",))),
    Cast(Call(("aten.nan_to_num.default",), (_PLAIN,))),
    Cast(Call(("aten.slice.Tensor",), (_PLAIN, Const("cut_dim"), 0, Const("cut")))),
)


class RaiseProducts(RewriteRule):
    """softmax(scores(q @ k^T)) @ v."""

    name = "raise-attention-products"
    patterns = tuple(Call(PRODUCTS, (weights, Var("v"))) for weights in _WEIGHTS)

    def check(self, found: Match, root: fx.Node) -> str:
        """One softmax over the keys, and queries, keys and values that belong together."""
        if not is_last(found["dim"], found["scores"]):
            return f"the softmax runs over dimension {found['dim']}, not over the keys"
        if found["v"].op == "get_attr":
            return f"the values {found['v'].name} are a weight"
        parts = read_softmaxed(found)
        if isinstance(parts, str):
            return parts
        scores = read_scores(parts.scores)
        if isinstance(scores, str):
            return scores
        used = (found["softmax"], found["scores"], scores.product, found["v"], root)
        if any(node.meta["val"].dtype == torch.float64 for node in used):
            return "attention in float64 would be computed in fp32"
        return _unlike(scores, parts.scores, found["v"])

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """Scale, cap and masks become arguments."""
        parts: Any = read_softmaxed(found)
        scores: Any = read_scores(parts.scores)
        dtype = root.meta["val"].dtype
        (left, q), (right, turned) = (_unscaled(side, dtype) for side in _sides(scores))
        result = rewriter.call(
            torch.ops.effc.attention.default,
            q,
            permute(rewriter, turned, [0, 1, 3, 2]),
            found["v"],
            _mask(rewriter, scores.masks),
            False,
            None,
            None,
            scores.scale * left * right,
            scores.softcap,
            as_vector(rewriter, parts.sinks),
        )
        if result.meta["val"].dtype == dtype:
            return result
        return rewriter.call(aten.to.dtype, result, dtype)


class AbsorbScale(RewriteRule):
    """A number that multiplies all queries or all keys is part of the scale."""

    name = "absorb-scale"
    patterns = (Call(("effc.attention.default",), (Var("q"), Var("k"))),)

    def check(self, found: Match, root: fx.Node) -> str:
        """There must be such a number."""
        scaled = [
            n for n in (found["q"], found["k"]) if _unscaled(n, n.meta["val"].dtype)[1] is not n
        ]
        return "" if scaled else "neither queries nor keys are scaled"

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """The same attention with another scale."""
        (left, q), (right, k) = (
            _unscaled(n, n.meta["val"].dtype) for n in (found["q"], found["k"])
        )
        args: list[Any] = [q, k, *root.args[2:]]
        args[_SCALE] *= left * right
        return rewriter.call(torch.ops.effc.attention.default, *args)


_SCALE = 7


def _unscaled(node: fx.Node, dtype: torch.dtype) -> tuple[float, fx.Node]:
    """A node without the number that multiplies it, if it has the type by then; and the number."""
    factor, inner = strip_scale(node)
    return (factor, inner) if inner.meta["val"].dtype == dtype else (1.0, node)


def _sides(scores: Scores) -> tuple[fx.Node, fx.Node]:
    queries, keys = scores.product.args
    return queries, keys  # type: ignore[return-value]


def _unlike(scores: Scores, outer: fx.Node, v: fx.Node) -> str:
    """Why queries [B, H, T, D], keys [B, H, D, S] and values [B, H, S, D_v] do not fit."""
    q, keys = _sides(scores)
    if any(rank(node) != 4 for node in (q, keys, v)):
        return "queries, keys and values are not [B, H, T, D]"
    if keys.op == "get_attr":
        return f"the keys {keys.name} are a weight"
    if not same_sizes(shape(keys)[:2], shape(v)[:2]) or not same_sizes(shape(q)[:1], shape(v)[:1]):
        return "queries, keys and values are of different batches or heads"
    if shape(v)[1] != 1 and not same_sizes(shape(q)[1:2], shape(v)[1:2]):
        return "queries and keys are of different heads"
    if not same_sizes(shape(outer), shape(scores.product)):
        return "the mask is broader than the scores"
    return ""


def _mask(rewriter: GraphRewriter, masks: Iterable[Added | Hidden]) -> fx.Node | None:
    """All masks as one: boolean if every one fills in -inf, else one to be added."""
    visible: fx.Node | None = None
    added: fx.Node | None = None
    for mask in masks:
        if isinstance(mask, Hidden) and math.isinf(mask.fill):
            allowed = _allowed(rewriter, mask)
            visible = _joined(rewriter, aten.logical_and.default, visible, allowed)
        else:
            added = _joined(rewriter, aten.add.Tensor, added, _summand(rewriter, mask))
    if visible is not None and added is not None:
        return _four(rewriter, rewriter.call(aten.where.ScalarOther, visible, added, -math.inf))
    return _four(rewriter, added if visible is None else visible)


def _joined(rewriter: GraphRewriter, join: Any, left: fx.Node | None, right: fx.Node) -> fx.Node:
    return right if left is None else rewriter.call(join, left, right)


def _allowed(rewriter: GraphRewriter, mask: Hidden) -> fx.Node:
    return mask.where if mask.visible else rewriter.call(aten.logical_not.default, mask.where)


def _summand(rewriter: GraphRewriter, mask: Added | Hidden) -> fx.Node:
    if isinstance(mask, Added):
        if mask.factor == 1.0:
            return mask.mask
        return rewriter.call(aten.mul.Tensor, mask.mask, mask.factor)
    values = (0.0, mask.fill) if mask.visible else (mask.fill, 0.0)
    return rewriter.call(aten.where.Scalar, mask.where, *values)


def _four(rewriter: GraphRewriter, mask: fx.Node | None) -> fx.Node | None:
    """The mask as [B or 1, H or 1, T or 1, S or 1]."""
    while mask is not None and rank(mask) < 4:
        mask = rewriter.call(aten.unsqueeze.default, mask, 0)
    return mask


@dataclass(frozen=True)
class RaiseAttentionProducts(RulePass):
    """Every attention of products becomes the canonical operator."""

    name: ClassVar[str] = "raise-attention-products"
    stage: ClassVar[PassStage] = PassStage.RAISE
    semantics: ClassVar[Semantics] = Semantics.ROUNDING
    after: ClassVar[tuple[str, ...]] = ("raise-attention", "raise-merged-heads")
    rules: ClassVar[tuple[RewriteRule, ...]] = (RaiseProducts(), AbsorbScale())
    near: ClassVar[int] = 2
