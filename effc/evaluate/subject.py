"""A model under measurement: a program with its weights in memory, loaded once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor

from effc.diagnostics import TargetError
from effc.ir.program import Program
from effc.ir.weights import Weight
from effc.runtime.engine import Engine
from effc.runtime.executable import Executable, State
from effc.runtime.session import STAGE, Session


class Subject:
    """A program that can be run in several ways over one copy of its weights.

    Several measurements need executables of their own; packed weights would be packed again for
    each. Here every weight is read or computed once, and the executables share it.

    Attributes:
        program: as given, over weights in memory.
        calls: how often each stage has run.

    Args:
        program: lowered.
        kernels: "auto" for the recorded choices, "reference" for every operator's reference.

    Raises:
        TargetError: E0502, the program was lowered to a device that is not here.
    """

    def __init__(self, program: Program, *, kernels: str = "auto") -> None:
        if program.device == "cuda" and not torch.cuda.is_available():
            raise TargetError(
                "E0502",
                "the model was compiled for a CUDA device and there is none here to measure it on",
                where=program.info.source,
                help='measure on a machine with a GPU, or compile with target.device = "cpu"',
            )
        self.program = _in_memory(program)
        self.calls: Counter[str] = Counter()
        self._kernels = kernels
        self._run = self.executable(self.program)

    def __call__(self, stage: str, inputs: Mapping[str, State]) -> dict[str, Tensor]:
        """Run a stage, see `effc.runtime.executable.Executable`."""
        self.calls[stage] += 1
        return self._run(stage, inputs)

    def executable(self, program: Program) -> Executable:
        """An executable of a variant of the program that reads the same weights."""
        return Executable(program, device=program.device, kernels=self._kernels)

    @property
    def generates(self) -> bool:
        """Whether it is a language model with a cache."""
        return self.program.loop == "autoregressive" and STAGE in self.program.stages

    @cached_property
    def engine(self) -> Engine:
        """Generates with it; see `generates`."""
        return Engine(self, device=self.program.device)

    def session(self, batch: int, capacity: int) -> Session:
        """An empty cache for `batch` sequences of at most `capacity` tokens."""
        return Session(self, batch, capacity, self.program.device)


def _in_memory(program: Program) -> Program:
    copy = program.copy()
    for name in sorted(copy.read_weights()):
        weight = copy.weights[name]
        copy.weights.set(name, Weight.of(weight.load().to(program.device), weight.origin))
    return copy
