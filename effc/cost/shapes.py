"""Sizes of a stage's values once its symbolic sizes have numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from effc.ir import sizes
from effc.ir.program import Stage
from effc.ir.types import symbol_names

Shape = tuple[int, ...]


class Shapes:
    """Shapes of a stage's values under given sizes.

    Args:
        stage: captured, so that its nodes carry fake values.
        known: the stage's size names, e.g. "B" and "T", with their numbers.

    Attributes:
        assumed: sizes that `known` does not determine, as text, with the number of the captured
            example that was taken instead.
    """

    def __init__(self, stage: Stage, known: Mapping[str, int]) -> None:
        self._names = symbol_names(stage)
        self._known = dict(known)
        self._cache: dict[str, int] = {}
        self.assumed: dict[str, int] = {}

    def size(self, size: int | torch.SymInt) -> int:
        """One size as a number."""
        if not isinstance(size, torch.SymInt):
            return int(size)
        key = str(size.node.expr)
        if key not in self._cache:
            self._cache[key] = self._evaluate(size)
        return self._cache[key]

    def of(self, value: Any) -> Shape:
        """The shape of a fake tensor."""
        return tuple(self.size(size) for size in value.shape)

    def numel(self, value: Any) -> int:
        """Elements of a fake tensor."""
        return math.prod(self.of(value))

    def nbytes(self, value: Any) -> int:
        """Bytes of a fake value: of a tensor, of all tensors of a list, none of a size."""
        return sum(self.numel(tensor) * tensor.dtype.itemsize for tensor in tensors(value))

    def _evaluate(self, size: torch.SymInt) -> int:
        free = {self._names.get(str(s), str(s)) for s in size.node.expr.free_symbols}
        text = sizes.of_value(size, self._names)
        if isinstance(text, int):
            return text
        if text != sizes.UNKNOWN and free <= self._known.keys():
            return sizes.evaluate(sizes.parse(text), self._known)
        value = int(size.node.hint or 1)
        self.assumed[str(size.node.expr) if text == sizes.UNKNOWN else text] = value
        return value


def tensors(value: Any) -> list[torch.Tensor]:
    """The tensors of a node's value, which may be a tensor, a list of values, or a size."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in tensors(item)]
    return []


def value_of(node: fx.Node) -> Any:
    """The fake value of a node, None where it has none."""
    return node.meta.get("val")
