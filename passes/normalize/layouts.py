"""Join permutations, and cancel shapes that come back to where they were.

Before:
    a = aten.permute.default(x, [0, 2, 3, 1])
    y = aten.permute.default(a, [0, 1, 3, 2])
    b = aten.view.default(h, [B * H, T, D])    # h: [B, H, T, D]
    z = aten.view.default(b, [B, H, T, D])
After:
    y = aten.permute.default(x, [0, 2, 1, 3])
    (all users of z read h)

Shapes in between stay where the last one is new: they say what the dimensions are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import fx

from effc.ir.passbase import PassStage
from effc.ir.pattern import Call, Match, Var, op_name
from effc.ir.rewriter import GraphRewriter
from effc.ir.rules import RewriteRule, RulePass
from effc.passes.normalize.shapes import (
    PERMUTES,
    RESHAPES,
    permutation,
    permute,
    same_shape,
)


class JoinPermutes(RewriteRule):
    """Two permutations are one."""

    name = "join-permutes"
    patterns = (Call(PERMUTES, (Call(PERMUTES, (Var("x"),), name="inner"),)),)

    def check(self, found: Match, root: fx.Node) -> str:
        """Both must be typed."""
        both = (permutation(found["inner"]), permutation(root))
        return "" if None not in both else "the dimensions are only known at run time"

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """Their product, or nothing at all."""
        return permute(rewriter, found["inner"], permutation(root) or [])


class CancelReshapes(RewriteRule):
    """A shape that comes back to an earlier one was never needed."""

    name = "cancel-reshapes"
    patterns = (Call(RESHAPES, (Call(RESHAPES),)),)

    def check(self, found: Match, root: fx.Node) -> str:
        """An earlier shape must be the last."""
        return "" if _as_before(root) is not None else "no earlier shape comes back"

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """What had that shape before."""
        return _as_before(root) or root


def _as_before(root: fx.Node) -> fx.Node | None:
    """The first value of a chain of reshapes that has the shape of the last."""
    node: Any = root
    earlier = None
    while op_name(node) in RESHAPES:
        node = node.args[0]
        earlier = node if same_shape(node, root) else earlier
    return earlier


@dataclass(frozen=True)
class JoinLayouts(RulePass):
    """Chains of permutations become one; chains of shapes that lead nowhere go."""

    name: ClassVar[str] = "join-layouts"
    stage: ClassVar[PassStage] = PassStage.NORMALIZE
    after: ClassVar[tuple[str, ...]] = ("remove-no-ops",)
    rules: ClassVar[tuple[RewriteRule, ...]] = (JoinPermutes(), CancelReshapes())
