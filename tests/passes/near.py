"""What a pass almost rewrites, and how such a program is made from a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from effc.ir.passbase import Pass
from effc.ir.program import Program
from tests.passes.case import values
from tests.programs import capture

Function = Callable[..., Any]

SAID_BY_NOBODY = ""
RENAMED = "renamed, and rewritten all the same"


@dataclass(frozen=True)
class Near:
    """A program that a pass almost rewrites, or rewrites although its names are others.

    Attributes:
        name: what is different.
        build: captures the program.
        reason: part of what the user is told; `RENAMED` if the pass must rewrite it.
        make: the pass, where it is not that of the row.
    """

    name: str
    build: Callable[[], Program]
    reason: str
    make: Callable[[], Pass] | None = None


@dataclass(frozen=True)
class NearMisses:
    """One pass.

    Attributes:
        location: as in the registry.
        make: the pass.
        unmatched: captures a program in which the pass must find nothing.
        near: what it almost rewrites.
        refusal: what the pass says of `unmatched`, if it refuses programs that are not for it.
    """

    location: str
    make: Callable[[], Pass]
    unmatched: Callable[[], Program]
    near: tuple[Near, ...]
    refusal: str = SAID_BY_NOBODY


class Calls(nn.Module):
    """A module of one function, with parameters p0, p1, ... as its last arguments."""

    def __init__(self, function: Function, *parameters: Tensor) -> None:
        super().__init__()
        self.function = function
        self.p = nn.ParameterList(nn.Parameter(p) for p in parameters)

    def forward(self, x: Tensor, y: Tensor, z: Tensor) -> Any:
        return self.function(x, y, z, *self.p)


def program(
    function: Function, *parameters: Tensor, shape: tuple[int, ...] = (2, 3, 4, 8)
) -> Callable[[], Program]:
    """Captures `function(x, y, z, *parameters)` of three inputs of one shape."""
    inputs = [values(*shape, seed=seed) for seed in range(3)]
    return lambda: capture(Calls(function, *parameters), *inputs)


def one_liner(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Nothing that any pass knows."""
    return x.sin() + y * 0.5 - z.exp()
