"""Weights by name, read or computed only when asked for.

A compile of a large model must never hold all of it: a `Weight` knows its shape and type at once
and its values on demand, from a memory-mapped file or from a computation over another weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Weight:
    """One named tensor of a program.

    Attributes:
        shape: its sizes.
        dtype: its element type.
        load: reads or computes the values; every call may do the work again.
        origin: where the values come from, for messages and reports.
        derivation: the computation that gives this weight and others at once, if there is one.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], torch.Tensor]
    origin: str
    derivation: Derivation | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def numel(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @staticmethod
    def of(tensor: torch.Tensor, origin: str = "memory") -> Weight:
        """A weight whose values are already in memory."""
        tensor = tensor.detach()
        return Weight(tuple(tensor.shape), tensor.dtype, lambda: tensor, origin)

    def map(
        self,
        function: Callable[[torch.Tensor], torch.Tensor],
        *,
        shape: tuple[int, ...],
        dtype: torch.dtype | None = None,
        origin: str,
    ) -> Weight:
        """A weight computed from this one when it is loaded."""
        return Weight(
            shape, dtype or self.dtype, lambda: function(self.load()), origin, self.derivation
        )


class Derivation:
    """One computation with several named results, each a weight.

    Results are handed out once and then forgotten, so that writing an artifact holds the results
    of one derivation at a time and still computes it only once. Whoever takes one result and not
    the others leaves those in memory: take all results of a `root`, or none.

    Attributes:
        root: the derivation that comes first when one reads the result of another.
    """

    def __init__(
        self, compute: Callable[[], Mapping[str, torch.Tensor]], source: Weight | None = None
    ) -> None:
        """
        Args:
            compute: gives all results by name.
            source: the weight that `compute` reads, if it reads one.
        """
        self.root: Derivation = self
        if source is not None and source.derivation is not None:
            self.root = source.derivation
        self._compute = compute
        self._pending: dict[str, torch.Tensor] = {}

    def weight(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, origin: str) -> Weight:
        """The result `name` as a weight of the given shape and type."""
        return Weight(shape, dtype, lambda: self._take(name), origin, self.root)

    def _take(self, name: str) -> torch.Tensor:
        if name not in self._pending:
            self._pending = dict(self._compute())
        return self._pending.pop(name)


class Weights(Mapping[str, Weight]):
    """The one state of a program, shared by its stages.

    Attributes:
        ties: other names of a weight -> the name it is kept under. Graphs use the kept name only,
            so sites that share a parameter share the weight.
    """

    def __init__(self, entries: Mapping[str, Weight] | None = None) -> None:
        self._entries: dict[str, Weight] = dict(entries or {})
        self.ties: dict[str, str] = {}

    def __getitem__(self, name: str) -> Weight:
        return self._entries[self.ties.get(name, name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def set(self, name: str, weight: Weight) -> None:
        """Add or replace an entry."""
        self._entries[name] = weight

    def remove(self, name: str) -> None:
        """Drop an entry that no graph uses any more, with its other names."""
        del self._entries[name]
        self.ties = {alias: kept for alias, kept in self.ties.items() if kept != name}

    def copy(self) -> Weights:
        """A new table over the same (immutable) entries."""
        other = Weights(self._entries)
        other.ties = dict(self.ties)
        return other

    @property
    def nbytes(self) -> int:
        """Bytes of all entries."""
        return sum(weight.nbytes for weight in self._entries.values())
