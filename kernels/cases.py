"""What an operator's `cases.py` states: one table that feeds tests, benchmarks and docs.

The rule of tolerance, the same for every operator: with `exact` the float64 result and `eager` the
computation that a user would write with plain torch operators in the precision of the inputs,

    max |result - exact|  <=  2 max |eager - exact| + ulp(max |exact|)

so that a kernel may lose what plain low precision loses, and no more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Sample:
    """One call of an operator.

    Attributes:
        name: what is special about it.
        make: builds the arguments by name, the same at every call.
    """

    name: str
    make: Callable[[], Arguments]


@dataclass(frozen=True)
class Refusal:
    """One call that an operator refuses.

    Attributes:
        name: what is wrong with it.
        make: builds the arguments by name.
        message: a part of the error's text.
    """

    name: str
    make: Callable[[], Arguments]
    message: str


@dataclass(frozen=True)
class OpCases:
    """The table of one operator.

    Attributes:
        op: its name without the namespace.
        samples: calls that must work.
        refusals: calls that must raise `EffcError`.
        exact: the result in float64 numpy, sharing no code with the operator.
        eager: the same from plain torch operators in the inputs' precision.
        rows: arguments whose first dimension counts the same, independent rows; empty where the
            operator does not promise row invariance.
    """

    op: str
    samples: tuple[Sample, ...]
    refusals: tuple[Refusal, ...]
    exact: Callable[..., np.ndarray]
    eager: Callable[..., torch.Tensor]
    rows: tuple[str, ...] = ()


def excess(result: torch.Tensor, exact: np.ndarray, eager: torch.Tensor) -> float:
    """By how much a result breaks the rule of tolerance; not positive where it keeps it."""
    if not exact.size:
        return 0.0
    error = np.abs(_float64(result) - exact).max()
    allowed = 2 * np.abs(_float64(eager) - exact).max()
    ulp = torch.finfo(result.dtype).eps * np.abs(exact).max()
    return float(error - allowed - ulp)


def _float64(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().to(torch.float64).numpy()
