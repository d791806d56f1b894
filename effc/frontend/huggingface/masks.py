"""What an attention mask says, found by asking it.

Transformers hands the attention backend a mask *function* of (batch, head, query, key). Evaluating
it on index vectors decides whether it is causal, full, sliding or chunked; anything else is
refused, because guessing would change the model silently.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from effc.diagnostics import ModelError

MaskFunction = Callable[[Any, Any, Any, Any], Any]


@dataclass(frozen=True)
class MaskSpec:
    """A mask as a statement; stands where a model passes its attention mask along.

    Attributes:
        causal: keys after the query are hidden.
        window: keys this many tokens or more before the query are hidden.
        chunk: only keys of the query's own chunk are visible.
    """

    causal: bool
    window: int | None = None
    chunk: int | None = None

    def allows(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """The mask's value by index, for comparison with what was probed."""
        allowed = torch.ones(torch.broadcast_shapes(query.shape, key.shape), dtype=torch.bool)
        if self.causal:
            allowed = allowed & (key <= query)
        if self.window is not None:
            allowed = allowed & (query - key < self.window)
        if self.chunk is not None:
            allowed = allowed & (query // self.chunk == key // self.chunk)
        return allowed


def probe(function: MaskFunction, length: int, place: str) -> MaskSpec:
    """Find out what a mask function means.

    Args:
        function: of (batch, head, query index, key index), index-based.
        length: probe this many tokens: more than twice any window of the model.
        place: for messages.

    Raises:
        ModelError: E0308 if the mask is none of the known kinds.
    """
    with _disable_current_modes(), torch._C.DisableTorchFunction():
        keys = torch.arange(length)
        queries = _sample(length)
        observed = torch.stack([_row(function, int(q), keys) for q in queries])
        spec = _hypothesis(observed, queries)
        if spec is None or not torch.equal(observed, spec.allows(queries[:, None], keys)):
            raise ModelError(
                "E0308",
                "the model's attention mask is neither causal, full, sliding nor chunked",
                where=place,
                help="effc cannot express this mask; export the part of the model without it",
            )
    return spec


def _sample(length: int) -> torch.Tensor:
    """Query indices: the first 64, the last, and a spread that avoids round numbers."""
    spread = torch.linspace(0, length - 1, 61).long()
    return torch.unique(torch.cat([torch.arange(min(64, length)), spread]))


def _row(function: MaskFunction, query: int, keys: torch.Tensor) -> torch.Tensor:
    zero = torch.zeros((), dtype=torch.long)
    answer = _concrete(function)(zero, zero, torch.tensor(query), keys)
    return torch.as_tensor(answer, dtype=torch.bool).expand(keys.shape)


def _concrete(function: MaskFunction) -> MaskFunction:
    """The function with traced tensors in its closure replaced by zeros.

    The only tensors there describe padding, and a captured graph is fed no padding.
    """
    if not function.__closure__:
        return function
    cells = tuple(types.CellType(_concrete_value(c.cell_contents)) for c in function.__closure__)
    return types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, cells
    )


def _concrete_value(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return torch.zeros(1, dtype=torch.long)
    if isinstance(value, types.FunctionType):
        return _concrete(value)
    if isinstance(value, tuple | list):
        return type(value)(_concrete_value(item) for item in value)
    return value


def _hypothesis(observed: torch.Tensor, queries: torch.Tensor) -> MaskSpec | None:
    if not bool(observed.any(dim=1).all()):
        return None
    last = observed.shape[1] - 1 - observed.flip(1).int().argmax(dim=1)
    first = observed.int().argmax(dim=1)
    causal = bool((last == queries).all())
    if not causal and bool((last < observed.shape[1] - 1).any()):
        return None
    if bool((first == 0).all()):
        return MaskSpec(causal)
    distance = queries - first + 1
    late = first > 0
    if len(torch.unique(distance[late])) == 1:
        return MaskSpec(causal, window=int(distance[late][0]))
    return MaskSpec(causal, chunk=int(first[late].min()))
