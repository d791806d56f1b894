"""Operands of elementwise operators that are a single number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.values import Sizes, Value


def number(g: Builder, x: Value, *others: Value) -> Any:
    """A constant of one element as a Python number, where it means the same beside `others`."""
    known = x if isinstance(x, torch.Tensor) else None
    if known is None or known.numel() != 1 or not any(isinstance(o, fx.Node) for o in others):
        return None
    return known.item() if _broadcasts(known.dim(), others) else None


def operand(g: Builder, x: Value, other: Value) -> Any:
    """One size as a number, where it means the same beside `other`; anything else as it is."""
    if not isinstance(x, Sizes) or x.items.size != 1 or not isinstance(other, fx.Node):
        return x
    fits = _broadcasts(x.items.ndim, [other]) and g.dtype(other) == x.dtype
    return x.flat()[0] if fits else x


def _broadcasts(rank: int, others: Sequence[Value]) -> bool:
    """Whether something of this rank leaves the rank of the result to the others."""
    ranks = [_rank(other) for other in others]
    return None not in ranks and rank <= max(r for r in ranks if r is not None)


def _rank(x: Value) -> int | None:
    if isinstance(x, torch.Tensor):
        return x.dim()
    if isinstance(x, Sizes):
        return x.items.ndim
    fake = x.meta.get("val") if isinstance(x, fx.Node) else None
    return fake.dim() if isinstance(fake, torch.Tensor) else None
