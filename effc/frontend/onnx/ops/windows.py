"""Windows that slide over the spatial dimensions: their pads in all the ways ONNX gives them."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.values import Mismatch, Size, Unsupported, Value

aten = torch.ops.aten


@dataclass(frozen=True)
class Windows:
    """How windows slide; one entry per spatial dimension.

    Attributes:
        kernel: elements that a window sees.
        strides: from one window to the next.
        dilations: from one element of a window to the next.
        begin, end: padding on either side; negative cuts.
    """

    kernel: list[Size]
    strides: list[int]
    dilations: list[int]
    begin: list[Size]
    end: list[Size]

    @property
    def rank(self) -> int:
        """The number of spatial dimensions."""
        return len(self.kernel)

    @property
    def symmetric(self) -> list[int] | None:
        """The padding of both sides where it is known, the same, and not negative."""
        same = [a for a, b in zip(self.begin, self.end, strict=True) if isinstance(a, int)]
        known = len(same) == self.rank and self.begin == self.end
        return same if known and min(same, default=0) >= 0 else None


def windows(
    g: Builder,
    x: Value,
    kernel: list[Size],
    *,
    strides: list[int] | None = None,
    dilations: list[int] | None = None,
    pads: list[int] | None = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
) -> Windows:
    """Windows over x [N, C, spatial...], from the attributes of a convolution or a pooling.

    Raises:
        Mismatch: a list has another length than there are spatial dimensions.
    """
    rank = len(kernel)
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    pads = pads or [0] * (2 * rank)
    if len(strides) != rank or len(dilations) != rank or len(pads) != 2 * rank:
        raise Mismatch(f"strides, dilations or pads do not fit {rank} spatial dimensions")
    begin: list[Size] = list(pads[:rank])
    end: list[Size] = list(pads[rank:])
    if auto_pad == "VALID":
        begin, end, ceil_mode = [0] * rank, [0] * rank, 0
    spans = [extent(g, k, d) for k, d in zip(kernel, dilations, strict=True)]
    for i in range(rank):
        if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            total = _same_padding(g, x, i + 2, spans[i], strides[i])
            begin[i], end[i] = halves(g, total, larger_end=auto_pad == "SAME_UPPER")
        elif ceil_mode:
            end[i] = _ceil_end(g, g.size(x, i + 2), begin[i], end[i], spans[i], strides[i])
    return Windows(kernel, strides, dilations, begin, end)


def extent(g: Builder, kernel: Size, dilation: int) -> Size:
    """How many elements lie under a window, those between its own included."""
    gaps = g.arith(operator.sub, kernel, 1)
    return g.arith(operator.add, g.arith(operator.mul, gaps, dilation), 1)


def halves(g: Builder, total: Size, larger_end: bool) -> tuple[Size, Size]:
    """A number in two parts of equal size, as far as that goes."""
    small = g.arith(operator.floordiv, total, 2)
    large = g.arith(operator.sub, total, small)
    return (small, large) if larger_end else (large, small)


def ceil_div(g: Builder, a: Size, b: int) -> Size:
    """a / b, rounded up."""
    return g.arith(operator.floordiv, g.arith(operator.add, a, b - 1), b)


def _same_padding(g: Builder, x: Value, dim: int, span: Size, stride: int) -> Size:
    """So much that there are ceil(size / stride) windows."""
    if stride == 1:
        return g.arith(operator.sub, span, 1)
    size = g.size(x, dim)
    steps = g.arith(operator.sub, ceil_div(g, size, stride), 1)
    needed = g.arith(operator.add, g.arith(operator.mul, steps, stride), span)
    return g.arith(torch.sym_max, g.arith(operator.sub, needed, size), 0)


def _ceil_end(g: Builder, size: Size, begin: Size, end: Size, span: Size, stride: int) -> Size:
    """The end padding with which a last, incomplete window is complete.

    A window that would start in the end padding is left out.
    """
    reach = g.arith(operator.add, size, begin)
    room = g.arith(operator.sub, g.arith(operator.add, reach, end), span)
    steps = g.arith(
        torch.sym_min,
        ceil_div(g, room, stride),
        g.arith(operator.sub, ceil_div(g, reach, stride), 1),
    )
    needed = g.arith(operator.add, g.arith(operator.mul, steps, stride), span)
    return g.arith(operator.sub, needed, reach)


def padded(g: Builder, x: Value, begin: Any, end: Any, value: float = 0) -> Value:
    """The last dimensions of x with padding on either side, one entry per dimension."""
    pads = [side for pair in reversed(list(zip(begin, end, strict=True))) for side in pair]
    if all(isinstance(pad, int) and pad == 0 for pad in pads):
        return x
    return g.call(aten.constant_pad_nd.default, x, pads, value)


def for_rank(targets: tuple[Any, ...], rank: int) -> Any:
    """The operator for so many spatial dimensions.

    Raises:
        Unsupported: there is none.
    """
    if not 1 <= rank <= len(targets):
        raise Unsupported(f"{rank} spatial dimensions; there may be 1 to {len(targets)}")
    return targets[rank - 1]
