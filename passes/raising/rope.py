"""Raise rotary position embedding to `effc::rope`.

Before:
    a = aten.mul.Tensor(q, cos)
    r = aten.cat([aten.neg(aten.slice(q, 3, 8, END)), aten.slice(q, 3, 0, 8)], -1)
    y = aten.add.Tensor(a, aten.mul.Tensor(r, sin))
After:
    y = effc.rope(q, cos, sin, "half")

Some write both halves of the result on their own, with one angle per pair:

Before:
    a, b = aten.slice(q, 3, 0, 8), aten.slice(q, 3, 8, END)
    first = aten.sub.Tensor(aten.mul.Tensor(a, cos), aten.mul.Tensor(b, sin))
    second = aten.add.Tensor(aten.mul.Tensor(b, cos), aten.mul.Tensor(a, sin))
    y = aten.cat([first, second], -1)
After:
    y = effc.rope(q, aten.cat([cos, cos], -1), aten.cat([sin, sin], -1), "half")

What is rotated may itself be the first part of a head's width.
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
from effc.passes.normalize.shapes import RESHAPES, is_last, same_shape, same_sizes, shape

aten = torch.ops.aten

END = 2**63 - 1


def _slice(start: str, stop: str, *step: Any) -> Call:
    args = (Var("x"), Const(f"{start}_dim"), Const(start), Const(stop), *step)
    return Call(("aten.slice.Tensor",), args, name=f"{start}_slice")


def _mul(left: Any, right: Any) -> Call:
    return Call(("aten.mul.Tensor",), (left, right), commutative=True)


def _add(left: Any, right: Any) -> Call:
    return Call(("aten.add.Tensor",), (left, right), commutative=True)


def _sub(left: Any, right: Any) -> Call:
    return Call(("aten.sub.Tensor",), (left, right))


def _neg(value: Any) -> Call:
    return Call(("aten.neg.default",), (value,))


def _cat(*items: Any) -> Call:
    return Call(("aten.cat.default",), (ListOf(items), Const("dim")))


def _paired(first: Any, second: Any) -> tuple[Call, ...]:
    """Two tensors whose coordinates alternate."""
    apart = [Call(("aten.unsqueeze.default",), (item, Const("new"))) for item in (first, second)]
    stacks = (
        Call(("aten.stack.default",), (ListOf((first, second)), Const("dim"))),
        Call(("aten.cat.default",), (ListOf(tuple(apart)), Const("dim"))),
    )
    return tuple(Call(RESHAPES, (stack,), name="joined") for stack in stacks)


_FIRST, _SECOND = _slice("zero", "half"), _slice("mid", "end")
_EVEN, _ODD = _slice("even", "last", 2), _slice("odd", "end", 2)
_HALF_TURN = _cat(_neg(_SECOND), _FIRST)
_PAIR_TURNS = _paired(_neg(_ODD), _EVEN)


def _rotation(turn: Call, join: Any = _add) -> Call:
    return join(_mul(Var("x"), Var("cos")), _mul(turn, Var("sin")))


def _components(first: Call, second: Call) -> tuple[Call, Call]:
    """Both coordinates of the rotated pairs."""
    cos, sin = Var("cos"), Var("sin")
    return (
        _sub(_mul(first, cos), _mul(second, sin)),
        _add(_mul(second, cos), _mul(first, sin)),
    )


_BACKWARDS = "the quarter turn is subtracted: this turns the other way than effc.rope does"


class RaiseRotation(RewriteRule):
    """x * cos + quarter_turn(x) * sin, in both pairings."""

    name = "raise-rotation"
    patterns = (_rotation(_HALF_TURN), *map(_rotation, _PAIR_TURNS))
    lookalikes = tuple(
        Lookalike(_rotation(turn, _sub), _BACKWARDS) for turn in (_HALF_TURN, *_PAIR_TURNS)
    )

    def check(self, found: Match, root: fx.Node) -> str:
        """Slices must cut the last dimension exactly in half, or into odd and even."""
        if not same_shape(root, found["x"]):
            return "the angles are broader than what they turn"
        return _wrong_cut(found)

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """One operator instead of seven."""
        return rewriter.call(
            torch.ops.effc.rope.default, found["x"], found["cos"], found["sin"], _style(found)
        )


class RaiseComponents(RewriteRule):
    """(a * cos - b * sin, b * cos + a * sin), in both pairings."""

    name = "raise-rotated-components"
    patterns = (_cat(*_components(_FIRST, _SECOND)), *_paired(*_components(_EVEN, _ODD)))

    def check(self, found: Match, root: fx.Node) -> str:
        """One angle per pair, and halves or pairs that are joined as they were cut."""
        x, cos, sin = found["x"], found["cos"], found["sin"]
        if not same_shape(root, x):
            return "the angles are broader than what they turn"
        if not same_sizes(shape(cos)[-1:], shape(sin)[-1:]) or shape(cos)[-1] * 2 != shape(x)[-1]:
            return "there is not one angle per pair"
        return _wrong_cut(found)

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """The angles of both coordinates of a pair are the same."""
        style = _style(found)
        cos, sin = (_doubled(rewriter, found[name], style) for name in ("cos", "sin"))
        return rewriter.call(torch.ops.effc.rope.default, found["x"], cos, sin, style)


def _doubled(rewriter: GraphRewriter, angles: fx.Node, style: str) -> fx.Node:
    if style == "half":
        return rewriter.call(aten.cat.default, [angles, angles], -1)
    return rewriter.call(aten.repeat_interleave.self_int, angles, 2, -1)


def _style(found: Match) -> str:
    return "half" if "half" in found.bound else "interleaved"


def _wrong_cut(found: Match) -> str:
    """Why slices and their joint are not those of a rotation; empty if they are."""
    x = found["x"]
    width = shape(x)[-1]
    cut = [value for name, value in found.bound.items() if name.endswith("_dim")]
    if not all(is_last(dim, x) for dim in cut) or not isinstance(width, int):
        return "the halves are not cut from the last dimension"
    if "half" in found.bound:
        return _wrong_halves(found, width)
    if not _alternate(found):
        return "the pairs are not joined side by side"
    fits = (found["odd"], found["even"]) == (1, 0) and min(found["end"], found["last"]) >= width - 1
    return "" if fits else "the slices are not odd and even"


def _wrong_halves(found: Match, width: int) -> str:
    if not is_last(found["dim"], found["x"]):
        return "the halves are not joined along the last dimension"
    steps = [found[f"{name}_slice"].args[4:] for name in ("zero", "mid")]
    cuts = (found["zero"], found["half"], found["mid"])
    fits = cuts == (0, width // 2, width // 2) and found["end"] >= width
    if fits and all(step in ((), (1,)) for step in steps):
        return ""
    return f"the cuts {cuts} are not the two halves of {width}"


def _alternate(found: Match) -> bool:
    """Whether two tensors are stacked behind the last dimension and flattened into it."""
    behind = (-1, len(shape(found["x"])))
    stacked = found["dim"] in behind and found.bound.get("new", -1) in behind
    return stacked and same_shape(found["joined"], found["x"])


@dataclass(frozen=True)
class RaiseRope(RulePass):
    """Decomposed rotations become the canonical operator."""

    name: ClassVar[str] = "raise-rope"
    stage: ClassVar[PassStage] = PassStage.RAISE
    rules: ClassVar[tuple[RewriteRule, ...]] = (RaiseRotation(), RaiseComponents())
