"""Raise activations that are written as formulas to their operators.

Before:
    a = aten.mul.Tensor(x, aten.sigmoid.default(x))
    e = aten.erf.default(aten.div.Tensor(x, 1.4142135623730951))
    b = aten.mul.Tensor(aten.mul.Tensor(x, 0.5), aten.add.Tensor(e, 1.0))
After:
    a = aten.silu.default(x)
    b = aten.gelu.default(x)

Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016, for GELU and its tanh approximation. A
constant must be the right one to the precision of the element type.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import fx

from effc.ir.passbase import PassStage, Semantics
from effc.ir.pattern import Call, Const, Match, Var
from effc.ir.rewriter import GraphRewriter
from effc.ir.rules import Lookalike, RewriteRule, RulePass

aten = torch.ops.aten

_X = Var("x")


def _mul(left: Any, right: Any) -> Call:
    return Call(("aten.mul.Tensor",), (left, right), commutative=True)


def _add(left: Any, right: Any) -> Call:
    return Call(("aten.add.Tensor",), (left, right), commutative=True)


def _halves(wave: Any) -> tuple[Call, ...]:
    """x / 2 * (1 + wave), in every order of the factors."""
    above = _add(wave, 1)
    half, over = Const("half"), Const("over")
    return (
        _mul(_mul(_X, half), above),
        _mul(_mul(_X, above), half),
        _mul(_X, _mul(above, half)),
        _mul(Call(("aten.div.Tensor",), (_X, over)), above),
        Call(("aten.div.Tensor",), (_mul(_X, above), over)),
        _mul(_X, Call(("aten.div.Tensor",), (above, over))),
    )


def _is_close(value: Any, wanted: float, dtype: torch.dtype) -> bool:
    return math.isclose(value, wanted, rel_tol=torch.finfo(dtype).eps)


def _wrong_constant(found: Match, root: fx.Node, wanted: dict[str, float]) -> str:
    """The first constant that is not the formula's."""
    dtype = root.meta["val"].dtype
    if not dtype.is_floating_point:
        return "the activation is not of floats"
    wanted = {"half": 0.5, "over": 2.0, **wanted}
    for name, value in wanted.items():
        if name in found.bound and not _is_close(found[name], value, dtype):
            return f"{name} is {found[name]!r}, not {value:.6g}"
    return ""


class RaiseSilu(RewriteRule):
    """x * sigmoid(x)."""

    name = "raise-silu"
    patterns = (_mul(_X, Call(("aten.sigmoid.default",), (_X,))),)
    lookalikes = (
        Lookalike(
            _mul(_X, Call(("aten.sigmoid.default",), (_mul(_X, Const("slope")),))),
            "the sigmoid is of a multiple of x (quick GELU); silu and gelu are other functions",
        ),
    )

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """One operator."""
        return rewriter.call(aten.silu.default, found["x"])


class RaiseGelu(RewriteRule):
    """x / 2 * (1 + erf(x / sqrt(2)))."""

    name = "raise-gelu"
    patterns = (
        *_halves(Call(("aten.erf.default",), (_mul(_X, Const("times")),))),
        *_halves(Call(("aten.erf.default",), (Call(("aten.div.Tensor",), (_X, Const("root"))),))),
    )

    def check(self, found: Match, root: fx.Node) -> str:
        """Half, and the root of two."""
        return _wrong_constant(found, root, {"times": math.sqrt(0.5), "root": math.sqrt(2.0)})

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """One operator."""
        return rewriter.call(aten.gelu.default, found["x"])


_SQUARE = (_mul(_X, _X), Call(("aten.pow.Tensor_Scalar",), (_X, 2)))
_CUBES = (Call(("aten.pow.Tensor_Scalar",), (_X, 3)), *(_mul(_X, square) for square in _SQUARE))
_CUBIC, _SLOPE = Const("cubic"), Const("slope")
_INNER = (
    *(_mul(_add(_X, _mul(cube, _CUBIC)), _SLOPE) for cube in _CUBES),
    *(_mul(_mul(_X, _SLOPE), _add(_mul(square, _CUBIC), 1)) for square in _SQUARE),
    _mul(_mul(_X, _SLOPE), _add(_mul(_mul(_X, _CUBIC), _X), 1)),
    *(_mul(_X, _add(_mul(square, Const("bend")), _SLOPE)) for square in _SQUARE),
)


class RaiseTanhGelu(RewriteRule):
    """x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))."""

    name = "raise-tanh-gelu"
    patterns = tuple(
        form for inner in _INNER for form in _halves(Call(("aten.tanh.default",), (inner,)))
    )

    def check(self, found: Match, root: fx.Node) -> str:
        """The three constants of the approximation."""
        slope = math.sqrt(2.0 / math.pi)
        wanted = {"cubic": 0.044715, "slope": slope, "bend": 0.044715 * slope}
        return _wrong_constant(found, root, wanted)

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """One operator."""
        return rewriter.call(aten.gelu.default, found["x"], approximate="tanh")


@dataclass(frozen=True)
class RaiseActivations(RulePass):
    """Formulas of activations become operators."""

    name: ClassVar[str] = "raise-activations"
    stage: ClassVar[PassStage] = PassStage.RAISE
    semantics: ClassVar[Semantics] = Semantics.ROUNDING
    rules: ClassVar[tuple[RewriteRule, ...]] = (RaiseSilu(), RaiseGelu(), RaiseTanhGelu())
    near: ClassVar[int] = 4
