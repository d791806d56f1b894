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
from torch._subclasses.fake_tensor import is_fake
from torch.utils._python_dispatch import _disable_current_modes

from effc.diagnostics import ModelError

MaskFunction = Callable[[Any, Any, Any, Any], Any]

# Traced tensors in a mask function's closure that say how much padding stands before each row:
# none in a captured graph.
_PADDING = ("left_padding",)


class _Stand:
    """Stands where a model expects the tensor of its mask, and must not be computed with."""

    @classmethod
    def __torch_function__(cls, *_: Any, **__: Any) -> Any:
        raise _computed()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # protocols such as copying ask politely
            raise AttributeError(name)
        raise _computed()

    def __getitem__(self, index: Any) -> Any:
        raise _computed()


def _computed() -> ModelError:
    return ModelError(
        "E0308",
        "the model computes with its attention mask instead of passing it to the library's "
        "attention function",
        help="this architecture needs support of its own in effc.frontend.huggingface",
    )


@dataclass(frozen=True)
class MaskSpec(_Stand):
    """A mask as a statement.

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


@dataclass(frozen=True)
class DenseMask(_Stand):
    """A mask as a tensor, for our attention alone: other code could add it to scores.

    Attributes:
        visible: boolean [B, 1, T, S].
    """

    visible: torch.Tensor


@dataclass(frozen=True)
class UnknownMask(_Stand):
    """A mask that no statement describes; models make masks that none of their layers uses.

    Attributes:
        error: to raise where the mask is used.
    """

    error: ModelError


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
        function = _concrete(function, place)
        keys, queries = torch.arange(length), _sample(length)
        spec = _hypothesis(function, queries, keys, place)
        same = spec is not None and all(
            torch.equal(_row(function, query, keys, place, head), spec.allows(query, keys))
            for query in queries
            for head in (0, 1)
        )
    if spec is None or not same:
        raise _refusal(
            "the model's attention mask is neither causal, full, sliding nor chunked", place
        )
    return spec


def _refusal(message: str, place: str) -> ModelError:
    help = "effc cannot express this mask; export the part of the model without it"
    return ModelError("E0308", message, where=place, help=help)


def _sample(length: int) -> torch.Tensor:
    """Query indices: the first 64, the last, and a spread that avoids round numbers."""
    spread = torch.linspace(0, length - 1, 61).long()
    return torch.unique(torch.cat([torch.arange(min(64, length)), spread]))


def _row(
    function: MaskFunction, query: torch.Tensor, keys: torch.Tensor, place: str, head: int = 0
) -> torch.Tensor:
    try:
        answer = function(torch.tensor(0), torch.tensor(head), query, keys)
        return torch.as_tensor(answer, dtype=torch.bool).expand(keys.shape)
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise _refusal(f"the attention mask cannot be evaluated ({reason})", place) from error


def _concrete(function: MaskFunction, place: str) -> MaskFunction:
    """The function as it is for rows without padding, free of traced tensors.

    Raises:
        ModelError: E0308 if the mask reads anything else that the model computed.
    """
    if not isinstance(function, types.FunctionType) or not function.__closure__:
        return function

    def value(name: str, found: Any) -> Any:
        if is_fake(found):
            if name not in _PADDING:
                raise _refusal(f"the attention mask depends on the input (through {name!r})", place)
            return torch.zeros(1, dtype=torch.long)
        if isinstance(found, tuple | list):
            return type(found)(value(name, item) for item in found)
        return _concrete(found, place) if isinstance(found, types.FunctionType) else found

    names, cells = function.__code__.co_freevars, function.__closure__
    values = [value(name, cell.cell_contents) for name, cell in zip(names, cells, strict=True)]
    return types.FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        tuple(map(types.CellType, values)),
    )


def _hypothesis(
    function: MaskFunction, queries: torch.Tensor, keys: torch.Tensor, place: str
) -> MaskSpec | None:
    """The one specification that the first and last visible keys of the rows leave possible."""
    ends = []
    for query in queries:
        visible = torch.nonzero(_row(function, query, keys, place)).flatten()
        if not len(visible):
            return None
        ends.append((int(visible[0]), int(visible[-1])))
    first, last = torch.tensor(ends).unbind(1)
    causal = bool((last == queries).all())
    late = first > 0
    if not bool(late.any()):
        return MaskSpec(causal)
    distance = (queries - first + 1)[late]
    if len(torch.unique(distance)) == 1:
        return MaskSpec(causal, window=int(distance[0]))
    return MaskSpec(causal, chunk=int(first[late].min()))
