"""Raise products with a dequantized weight to `effc::quantized_linear`, and such tables likewise.

What DequantizeLinear over a constant is, where a model was quantized by others:

Before:
    q = aten.sub.Tensor(aten.to.dtype(weight, float32), zero)       # weight [in, out] int8
    w = aten.mul.Tensor(q, scale)                                   # scale [1, out] float32
    y = aten.matmul(x, w)
After:
    y = effc.quantized_linear(x, codes, scale, zero, None, 8, in, in, "source")

Scales and zero points may belong to the whole weight, to each output, or to blocks of inputs
(`repeat_interleave`). The codes take as few bits as hold them. No value of the weight changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import fx

from effc.ir.passbase import PassStage, Semantics
from effc.ir.pattern import Call, ListOf, Match, Var
from effc.ir.rewriter import GraphRewriter
from effc.ir.rules import RewriteRule, RulePass
from effc.passes.normalize.fold_constants import TRANSPOSES
from effc.passes.raising.dequantized import Dequantized, PackedForm, read_dequantized

_WIDE = Call(("aten.to.dtype",), (Var("stored"),))
_CENTERED = Call(("aten.sub.Tensor", "aten.sub.Scalar"), (_WIDE,))
_SCALED = tuple(
    Call(("aten.mul.Tensor", "aten.mul.Scalar"), (levels,), name="scaled")
    for levels in (_CENTERED, _WIDE)
)
_TURNED = tuple(Call(TRANSPOSES, (scaled,), name="turned") for scaled in _SCALED)
_PRODUCTS = ("aten.mm.default", "aten.matmul.default")


class RaiseDequantized(RewriteRule):
    """What two rules have in common: a dequantized matrix, and where its inputs lie."""

    def inputs_axis(self, found: Match, root: fx.Node) -> int:
        """Which dimension of the stored matrix is the one that is summed over, or looked up."""
        raise NotImplementedError

    def check(self, found: Match, root: fx.Node) -> str:
        """The factor must be a dequantized matrix whose groups the packed layout can express."""
        read = read_dequantized(found["scaled"], self.inputs_axis(found, root))
        if isinstance(read, str):
            return read
        return _not_turned(found)

    def packed(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> _Planes:
        """The planes of the matrix, added to the program."""
        read = read_dequantized(found["scaled"], self.inputs_axis(found, root))
        assert isinstance(read, Dequantized), "the check has read it"
        form = PackedForm.of(rewriter.program, read)
        for plane, weight in form.planes.items():
            if f"{form.stem}.{plane}" not in rewriter.program.weights:
                rewriter.add_weight(f"{form.stem}.{plane}", weight)
        nodes = {plane: rewriter.weight(f"{form.stem}.{plane}") for plane in form.planes}
        arguments = nodes["codes"], nodes["scale"], nodes.get("zero")
        return _Planes(arguments, (form.bits, form.group, form.columns))


@dataclass(frozen=True)
class _Planes:
    """Arguments of the packed operators: codes, scale and zero point; bits, group and width."""

    nodes: tuple[fx.Node, fx.Node, fx.Node | None]
    form: tuple[int, int, int]


def _not_turned(found: Match) -> str:
    turned = found.bound.get("turned")
    if turned is None:
        return ""
    swapped = found["scaled"].meta["val"].shape[::-1]
    return "" if turned.meta["val"].shape == swapped else f"{turned.name} is no transpose"


class RaiseDequantizedProduct(RaiseDequantized):
    """x @ w (+ b) and x @ w.T (+ b), w dequantized."""

    name = "raise-dequantized-product"
    patterns = (
        *(Call(("aten.linear.default",), (Var("x"), w), name="linear") for w in _SCALED),
        *(Call(_PRODUCTS, (Var("x"), w)) for w in _SCALED + _TURNED),
        *(Call(("aten.addmm.default",), (Var("bias"), Var("x"), w)) for w in _SCALED + _TURNED),
    )

    def inputs_axis(self, found: Match, root: fx.Node) -> int:
        """A linear and a product with the transpose have [out, in]."""
        return 1 if "linear" in found.bound or "turned" in found.bound else 0

    def check(self, found: Match, root: fx.Node) -> str:
        """A bias must be a vector."""
        bias = found.bound.get("bias")
        if bias is not None and bias.meta["val"].dim() != 1:
            return f"{bias.name} is no bias"
        return super().check(found, root)

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """The codes are packed row by row; inputs meet them as they are."""
        planes = self.packed(rewriter, found, root)
        bias: Any = found.bound.get("bias")
        if "linear" in found.bound and len(root.args) > 2:
            bias = root.args[2]
        args = (found["x"], *planes.nodes, bias, *planes.form, "source")
        return rewriter.call(torch.ops.effc.quantized_linear.default, *args)


class RaiseDequantizedTable(RaiseDequantized):
    """Rows of a dequantized table."""

    name = "raise-dequantized-table"
    patterns = (
        *(Call(("aten.embedding.default",), (table, Var("ids"))) for table in _SCALED),
        *(Call(("aten.index.Tensor",), (table, ListOf((Var("ids"),)))) for table in _SCALED),
    )

    def inputs_axis(self, found: Match, root: fx.Node) -> int:
        """The table is [rows, width]."""
        return 1

    def check(self, found: Match, root: fx.Node) -> str:
        """Indices, not a mask."""
        dtype = found["ids"].meta["val"].dtype
        if dtype not in (torch.int32, torch.int64):
            return f"{found['ids'].name} is {dtype}, no indices"
        return super().check(found, root)

    def rewrite(self, rewriter: GraphRewriter, found: Match, root: fx.Node) -> fx.Node:
        """Only the rows asked for are dequantized."""
        planes = self.packed(rewriter, found, root)
        args = (found["ids"], *planes.nodes, *planes.form, torch.float32)
        return rewriter.call(torch.ops.effc.quantized_embedding.default, *args)


@dataclass(frozen=True)
class RaiseQuantizedLinear(RulePass):
    """Products with dequantized weights become quantized linears."""

    name: ClassVar[str] = "raise-dequantized-linear"
    stage: ClassVar[PassStage] = PassStage.RAISE
    semantics: ClassVar[Semantics] = Semantics.ROUNDING
    rules: ClassVar[tuple[RewriteRule, ...]] = (
        RaiseDequantizedProduct(),
        RaiseDequantizedTable(),
    )
    near: ClassVar[int] = 3
