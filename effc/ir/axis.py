"""A symbolic size, followed through the shapes of a graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import fx


@dataclass(frozen=True)
class Axis:
    """A symbolic size that is followed through shapes, e.g. the number of tokens.

    A dimension *holds* the axis when its size depends on the symbol. Its entries are then numbered
    by (outer symbols, this symbol, integers) in row-major order; the rules keep it so.

    Attributes:
        symbol: of the size.
        outer: symbols of axes that lie outside of this one wherever both share a dimension.
        noun: what the entries are called in messages.
        place: the dimension of queries, keys and values that is this axis.
    """

    symbol: sympy.Expr
    outer: frozenset[sympy.Expr]
    noun: str
    place: int

    def dims(self, tensor: torch.Tensor) -> list[int]:
        """Dimensions that hold the axis."""
        return [d for d, size in enumerate(tensor.shape) if self.in_number(size)]

    def in_number(self, value: Any) -> bool:
        """Whether a symbolic number depends on the size of the axis."""
        symbolic = isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool)
        return symbolic and self.symbol in value.node.expr.free_symbols

    def numbers(self, node: fx.Node) -> bool:
        """Whether a call computes with a number that depends on the size of the axis."""
        return any(self.in_number(n.meta.get("val")) for n in node.all_input_nodes)

    def stride(self, tensor: torch.Tensor) -> sympy.Expr | None:
        """Elements between one entry of the axis and the next in row-major order."""
        dims = self.dims(tensor)
        if not dims:
            return None
        inner = sympy.Integer(1)
        for factor in sympy.Mul.make_args(expression(tensor.shape[dims[0]])):
            if factor != self.symbol and factor not in self.outer:
                inner *= factor
        for later in tensor.shape[dims[0] + 1 :]:
            inner *= expression(later)
        return inner


def expression(size: Any) -> sympy.Expr:
    """A size, symbolic or not, as an expression."""
    return size.node.expr if isinstance(size, torch.SymInt) else sympy.Integer(size)


def tensors(value: Any) -> list[torch.Tensor]:
    """All tensors in a value, a list or a tuple."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [t for item in value for t in tensors(item)]
    return []
