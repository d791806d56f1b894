"""The peak of live values against enumeration and against what really is allocated."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch.utils._python_dispatch import TorchDispatchMode

from effc.cost.graph import Situation
from effc.cost.liveness import live_peak, owners
from effc.ir.program import Program, Stage
from effc.runtime.executable import Executable
from tests.programs import canonical, capture, decoder, example_ids


class Allocations(TorchDispatchMode):
    """Bytes of all storages that operators made and that still exist, and their maximum."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.known: set[int] = set()
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in torch.utils._pytree.tree_leaves((args, kwargs)):
            if isinstance(tensor, torch.Tensor):
                self.known.add(tensor.untyped_storage().data_ptr())
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        self.peak = max(self.peak, sum(self.live.values()))
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        address = storage.data_ptr()
        if address in self.live or address in self.known or not storage.nbytes():
            return
        self.live[address] = storage.nbytes()
        weakref.finalize(storage, self._forget, address)

    def _forget(self, address: int) -> None:
        self.live.pop(address, None)
        self.known.discard(address)


class Branches(nn.Module):
    """Values of different lengths of life, and views that keep others alive."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        early = x.exp()
        view = early.transpose(0, 1)
        wide = torch.cat([x, x, x], 0).sin()
        narrow = wide[:2].cos()
        return (narrow.sum() + view.reshape(-1).sum()).exp()


class Chain(nn.Module):
    """Nothing but one value after the other."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(5):
            x = x.exp()
        return x


def enumerated(stage: Stage, situation: Situation) -> int:
    """The definition, point by point: what was made before and is used at or after."""
    from effc.cost.shapes import Shapes

    shapes, nodes, owner = Shapes(stage, situation.sizes), list(stage.graph.nodes), owners(stage)

    def needed(value: fx.Node, at: int) -> bool:
        readers = (i for n in nodes if owner.get(n) is value for i in map(nodes.index, n.users))
        return nodes.index(value) <= at <= max([nodes.index(value), *readers])

    values = [n for n in nodes if owner.get(n) is n]
    return max(
        sum(shapes.nbytes(v.meta["val"]) for v in values if needed(v, at))
        for at in range(len(nodes))
    )


PROGRAMS = {
    "branches": lambda: (capture(Branches(), torch.randn(4, 6)), {"B": 4, "T": 6}),
    "chain": lambda: (capture(Chain(), torch.randn(4, 6)), {"B": 4, "T": 6}),
    "mlp": lambda: (
        capture(nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3)), torch.randn(4, 6)),
        {"B": 4, "T": 6},
    ),
    "decoder": lambda: (canonical(decoder(), *example_ids()), {"B": 2, "T": 5}),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_peak_is_what_enumeration_finds(name: str) -> None:
    program, sizes = PROGRAMS[name]()
    stage, situation = program.stages["forward"], Situation(sizes)
    assert live_peak(stage, situation).nbytes == enumerated(stage, situation)


@pytest.mark.parametrize("name", ("branches", "chain", "mlp"))
def test_peak_is_what_is_allocated(name: str) -> None:
    program, sizes = PROGRAMS[name]()
    assert live_peak(program.stages["forward"], Situation(sizes)).nbytes == allocated(program)


def allocated(program: Program) -> int:
    """Bytes at the worst moment of a real run."""
    inputs = {program.stages["forward"].inputs[0].name: torch.randn(4, 6)}
    executable = Executable(program)
    with Allocations() as seen:
        executable("forward", inputs)
    return seen.peak


def test_a_chain_needs_two_values() -> None:
    program, sizes = PROGRAMS["chain"]()
    assert live_peak(program.stages["forward"], Situation(sizes)).nbytes == 2 * 4 * 6 * 4


def test_the_peak_has_a_place() -> None:
    program, sizes = PROGRAMS["mlp"]()
    peak = live_peak(program.stages["forward"], Situation(sizes))
    assert peak.node == "relu" and peak.place == "1"
