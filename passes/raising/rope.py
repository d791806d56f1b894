"""Raise rotary position embedding to `effc::rope`.

Before:
    a = aten.mul.Tensor(q, cos)
    r = aten.cat([aten.neg(aten.slice(q, 3, 8, END)), aten.slice(q, 3, 0, 8)], -1)
    y = aten.add.Tensor(a, aten.mul.Tensor(r, sin))
After:
    y = effc.rope(q, cos, sin, "half")
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import fx

from effc.ir.passbase import PassStage
from effc.ir.pattern import Call, Const, ListOf, Match, Var
from effc.ir.rewriter import GraphRewriter
from effc.ir.rules import Lookalike, RewriteRule, RulePass

END = 2**63 - 1


def _slice(start: str, stop: str, *step: Any) -> Call:
    args = (Var("x"), Const(f"{start}_dim"), Const(start), Const(stop), *step)
    return Call(("aten.slice.Tensor",), args)


_SECOND_FIRST = ListOf(
    (Call(("aten.neg.default",), (_slice("mid", "end"),)), _slice("zero", "half"))
)
_HALF_TURN = Call(("aten.cat.default",), (_SECOND_FIRST, Const("dim")))
_ODD_EVEN = ListOf(
    (Call(("aten.neg.default",), (_slice("odd", "end", 2),)), _slice("even", "last", 2))
)
_PAIR_TURN = Call(
    ("aten.flatten.using_ints",),
    (Call(("aten.stack.default",), (_ODD_EVEN, Const("dim"))), -2),
)


def _rotation(turn: Call, joined: str = "aten.add.Tensor") -> Call:
    straight = Call(("aten.mul.Tensor",), (Var("x"), Var("cos")), commutative=True)
    turned = Call(("aten.mul.Tensor",), (turn, Var("sin")), commutative=True)
    return Call((joined,), (straight, turned), commutative=joined == "aten.add.Tensor")


_BACKWARDS = "the quarter turn is subtracted: this turns the other way than effc.rope does"


class RaiseRotation(RewriteRule):
    """x * cos + quarter_turn(x) * sin, in both pairings."""

    name = "raise-rotation"
    patterns = (_rotation(_HALF_TURN), _rotation(_PAIR_TURN))
    lookalikes = (
        Lookalike(_rotation(_HALF_TURN, "aten.sub.Tensor"), _BACKWARDS),
        Lookalike(_rotation(_PAIR_TURN, "aten.sub.Tensor"), _BACKWARDS),
    )

    def check(self, found: Match, root: fx.Node) -> str:
        """Slices must cut the last dimension exactly in half, or into odd and even."""
        value = found["x"].meta["val"]
        width, last = value.shape[-1], value.dim() - 1
        if root.meta["val"].shape != value.shape:
            return "the angles are broader than what they turn"
        dims = [v for k, v in found.bound.items() if k.endswith("_dim")]
        if any(d not in (-1, last) for d in dims):
            return "the halves are not cut from the last dimension"
        if "half" in found.bound:
            if found["dim"] not in (-1, last):
                return "the halves are not joined along the last dimension"
            cuts = (found["zero"], found["half"], found["mid"])
            fits = cuts == (0, width // 2, width // 2) and found["end"] >= width
            return "" if fits else f"the cuts {cuts} are not the two halves of {width}"
        fits = (found["odd"], found["even"]) == (1, 0) and found["dim"] == -1
        return "" if fits and found["end"] >= width else "the slices are not odd and even"

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """One operator instead of seven."""
        style = "half" if "half" in found.bound else "interleaved"
        return rewriter.call(
            torch.ops.effc.rope.default, found["x"], found["cos"], found["sin"], style
        )


@dataclass(frozen=True)
class RaiseRope(RulePass):
    """Decomposed rotations become the canonical operator."""

    name: ClassVar[str] = "raise-rope"
    stage: ClassVar[PassStage] = PassStage.RAISE
    rules: ClassVar[tuple[RewriteRule, ...]] = (RaiseRotation(),)
