"""What a case of a pass is, and how one is made from a module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from effc.ir.passbase import Pass
from effc.ir.program import Program
from tests.programs import Inputs, capture


@dataclass(frozen=True)
class PassCase:
    """What a pass is tested on.

    Attributes:
        location: as in the registry.
        make: the pass, ready to run.
        build: captures the program before the pass.
        inputs: of the stage that is run, by name.
        applied: number of places the pass must rewrite.
    """

    location: str
    make: Callable[[], Pass]
    build: Callable[[], Program]
    inputs: Callable[[], Inputs]
    applied: int

    @property
    def name(self) -> str:
        """The name of the pass."""
        return self.make().name

    def program(self) -> Program:
        """A fresh copy of the program, captured once."""
        return captured(self.build).copy()


@cache
def captured(build: Callable[[], Program]) -> Program:
    """What `build` captures, once."""
    return build()


def values(*shape: int, seed: int = 0) -> Tensor:
    """Fixed random numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def named(**inputs: Tensor) -> Callable[[], Inputs]:
    """Inputs by name, made afresh at every call."""
    return lambda: dict(inputs)


def of_module(module: Callable[[], nn.Module], **inputs: Tensor) -> dict[str, Any]:
    """Program and inputs of a case; a first size that is that of the first input is dynamic."""
    batch = next(iter(inputs.values())).shape[0]
    dim = torch.export.Dim("B", min=1)
    shapes = {name: {0: dim} if len(x) == batch else {} for name, x in inputs.items()}
    return {
        "build": lambda: capture(module(), *inputs.values(), dynamic_shapes=shapes),
        "inputs": named(**inputs),
    }
