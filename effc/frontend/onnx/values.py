"""What an ONNX value is while a graph is translated.

Translation is partial evaluation: what is known is computed at once, what depends on sizes alone
stays arithmetic on sizes, and only the rest becomes calls of operators.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import fx

Size: TypeAlias = int | fx.Node
"""A number of a shape: known, or a node that has it at run time."""


class Unsupported(Exception):
    """An operator, in the form found, has no translation; the text says why."""


class Mismatch(Exception):
    """The inputs of an operator do not fit together: the model itself is wrong."""


class SizesSettled(Exception):
    """An operator says what sizes are that the file leaves open; the translation starts again.

    Attributes:
        sizes: see `effc.frontend.onnx.equations`.
    """

    def __init__(self, sizes: Mapping[str, int | tuple[str, ...]]) -> None:
        super().__init__(str(sizes))
        self.sizes = sizes


@dataclass(frozen=True, eq=False)
class Sizes:
    """An integer tensor that is known element by element.

    Attributes:
        items: object array of any rank, mostly 0 or 1; each element an int or a node.
        dtype: the element type of the tensor that this stands for.
    """

    items: np.ndarray
    dtype: torch.dtype = torch.int64

    def flat(self) -> list[Size]:
        """The elements in order."""
        return list(self.items.flat)


@dataclass(frozen=True)
class Content:
    """What is in a sequence or an optional that is only known at run time (`meta["content"]`).

    Attributes:
        dtype: of its tensors.
        shape: of each of them, None for a size that is open; None when even the rank is.
        sequence: whether it is a list; else one tensor or nothing.
    """

    dtype: torch.dtype
    shape: tuple[int | None, ...] | list[int | None] | None
    sequence: bool


Value: TypeAlias = "torch.Tensor | fx.Node | Sizes | list[Value] | None"
"""A constant, something computed at run time, sizes, a sequence, or an absent optional."""


def object_array(items: object) -> np.ndarray:
    """An array of Python objects, without asking them whether they are sequences."""
    if not isinstance(items, list | tuple):
        array = np.empty((), dtype=object)
        array[()] = items
        return array
    array = np.empty(len(items), dtype=object)
    for index, item in enumerate(items):
        array[index] = item
    return array
