"""Let several query heads read one key head, instead of copies of it.

Before:
    c = aten.expand.default(aten.unsqueeze.default(k, 2), [B, 2, 4, S, D])   # k: [B, 2, S, D]
    r = aten.reshape.default(c, [B, 8, S, D])
    y = effc.attention(q, r, aten.repeat_interleave.self_int(v, 4, 1), ...)
After:
    y = effc.attention(q, k, v, ...)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import fx

from effc.ir.passbase import PassStage, Semantics
from effc.ir.pattern import Call, Match, Var, op_name
from effc.ir.rewriter import GraphRewriter
from effc.ir.rules import Lookalike, RewriteRule, RulePass
from effc.passes.normalize.shapes import (
    RESHAPES,
    permutation,
    permute,
    rank,
    same_sizes,
    shape,
)

_COPIES = (
    "aten.expand.default",
    "aten.broadcast_to.default",
    "aten.repeat.default",
    "aten.tile.default",
    "aten.cat.default",
)
_CONTIGUOUS = ("aten.clone.default", "aten.contiguous.default")
_ATTENTION = ("effc.attention.default",)
_TILED = Call(("aten.repeat.default", "aten.tile.default"), (Var("source"),), name="tiled")
HEADS = 1


class ShareKeys(RewriteRule):
    """Copies of key and value heads, as many of both, each beside its original."""

    name = "share-keys"
    patterns = (Call(_ATTENTION, (Var("q"), Var("k"), Var("v"))),)
    lookalikes = (
        Lookalike(
            Call(_ATTENTION, (Var("q"), _TILED)),
            "the key heads are repeated as a whole (0 1 0 1); grouped queries need each head "
            "beside its copies (0 0 1 1)",
            lambda found: rank(found["source"]) == 4 and shape(found["source"])[HEADS] != 1,
        ),
    )

    def check(self, found: Match, root: fx.Node) -> str:
        """Keys and values must come from the same number of heads."""
        k, v = (original(found[name], HEADS) for name in "kv")
        if k is None or v is None:
            return "keys and values are not both copies of fewer heads"
        if not same_sizes(k.shape[:2], v.shape[:2]):
            return "keys and values are copied from different numbers of heads"
        return ""

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """The operator groups queries by itself."""
        k, v = (_taken(rewriter, found[name]) for name in "kv")
        return rewriter.call(torch.ops.effc.attention.default, found["q"], k, v, *root.args[3:])


@dataclass(frozen=True)
class Original:
    """What copies along one dimension are copies of.

    Attributes:
        node: the source.
        dims: order of its dimensions in which it stands for the copies.
        shape: its shape in that order.
        extra: a dimension of size one that the source has beside those.
    """

    node: fx.Node
    dims: list[int]
    shape: tuple[Any, ...]
    extra: int | None = None


def original(node: fx.Node, dim: int) -> Original | None:
    """What a four-dimensional node repeats along `dim`, None if it does not."""
    node = _materialized(node)
    dims = permutation(node)
    if dims is not None:
        inner = original(node.args[0], dims[dim])  # type: ignore[arg-type]
        if inner is None:
            return None
        order, sizes = ([part[d] for d in dims] for part in (inner.dims, inner.shape))
        return Original(inner.node, order, tuple(sizes), inner.extra)
    if rank(node) != 4:
        return None
    source = _interleaved(node, dim) or _expanded(node, dim)
    if source is not None:
        return Original(source, list(range(4)), shape(source))
    return _spread(node, dim)


def _taken(rewriter: GraphRewriter, node: fx.Node) -> fx.Node:
    found: Any = original(node, HEADS)
    source = found.node
    if found.extra is not None:
        source = rewriter.call(torch.ops.aten.squeeze.dim, source, found.extra)
    return permute(rewriter, source, found.dims)


def _interleaved(node: fx.Node, dim: int) -> fx.Node | None:
    """x of repeat_interleave(x, G, dim)."""
    if op_name(node) != "aten.repeat_interleave.self_int" or len(node.args) < 3:
        return None
    along = node.args[2]
    return node.args[0] if along is not None and along % 4 == dim else None  # type: ignore[operator, return-value]


def _expanded(node: fx.Node, dim: int) -> fx.Node | None:
    """x of copies of its only head."""
    source = _copied(node)
    return source if source is not None and _differ_at(source, node, dim) else None


def _spread(node: fx.Node, dim: int) -> Original | None:
    """x of reshape(copies(unsqueeze(x, dim + 1))), both dimensions merged."""
    if op_name(node) not in RESHAPES:
        return None
    copies = _materialized(node.args[0])  # type: ignore[arg-type]
    source = _copied(copies)
    if source is None or rank(copies) != 5 or not _differ_at(source, copies, dim + 1):
        return None
    sizes = shape(copies)
    merged = (*sizes[:dim], sizes[dim] * sizes[dim + 1], *sizes[dim + 2 :])
    if not same_sizes(merged, shape(node)):
        return None
    kept = (*sizes[: dim + 1], *sizes[dim + 2 :])
    narrow = source.args[0] if op_name(source) in RESHAPES else None
    if isinstance(narrow, fx.Node) and same_sizes(shape(narrow), kept):
        return Original(narrow, list(range(4)), kept)
    return Original(source, list(range(4)), kept, dim + 1)


def _copied(node: fx.Node) -> fx.Node | None:
    """What an operator makes copies of along dimensions of size one."""
    if op_name(node) not in _COPIES:
        return None
    first: Any = node.args[0]
    if isinstance(first, list | tuple):
        return first[0] if all(_is_same(item, first[0]) for item in first) else None
    return first


def _is_same(left: fx.Node, right: fx.Node) -> bool:
    """Whether two nodes are one, or the same call of the same arguments."""
    call = (op_name(left), left.args, left.kwargs)
    return left is right or (call[0] != "" and call == (op_name(right), right.args, right.kwargs))


def _differ_at(one: fx.Node, many: fx.Node, dim: int) -> bool:
    """Whether two shapes are the same but for one dimension, where the first has size one."""
    left, right = shape(one), shape(many)
    if len(left) != len(right) or left[dim] != 1:
        return False
    return same_sizes((*left[:dim], *left[dim + 1 :]), (*right[:dim], *right[dim + 1 :]))


def _materialized(node: fx.Node) -> fx.Node:
    while op_name(node) in _CONTIGUOUS:
        node = node.args[0]  # type: ignore[assignment]
    return node


@dataclass(frozen=True)
class RaiseGroupedQueries(RulePass):
    """Attention over copied heads reads the heads themselves."""

    name: ClassVar[str] = "raise-grouped-queries"
    stage: ClassVar[PassStage] = PassStage.RAISE
    semantics: ClassVar[Semantics] = Semantics.ROUNDING
    after: ClassVar[tuple[str, ...]] = ("raise-attention", "raise-attention-products")
    rules: ClassVar[tuple[RewriteRule, ...]] = (ShareKeys(),)
    near: ClassVar[int] = 2
