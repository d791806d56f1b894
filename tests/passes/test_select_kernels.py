"""Kernel selection: reasons, refusals, the reference as an ordinary candidate."""

from __future__ import annotations

import pytest
import torch

from effc.diagnostics import KernelError
from effc.ir.journal import Journal
from effc.ir.passbase import Outcome
from effc.kernels import registry
from effc.kernels.registry import KernelEntry, Support
from effc.passes.lowering.select_kernels import SelectKernels
from tests.ir.graphs import node_called, program_of

HERE = __name__


def fast(*arguments: object) -> None:
    """Stands for a kernel; never called."""


def only_two_rows(arguments: dict[str, object], target: object) -> Support:
    """A kernel that asks for the call's arguments by name."""
    gate = arguments["gate"]
    assert isinstance(gate, torch.Tensor) and arguments["activation"] == "silu"
    return Support(gate.shape[0] == 2, "" if gate.shape[0] == 2 else f"{gate.shape[0]} rows, not 2")


def never(arguments: dict[str, object], target: object) -> Support:
    """A kernel that is not for this machine."""
    return Support(False, f"no such unit on {target}")


def entry(name: str, supports: str | None, priority: int = 10) -> KernelEntry:
    where = None if supports is None else f"{HERE}:{supports}"
    return KernelEntry("gated_activation", name, "cpu", f"{HERE}:fast", where, priority)


def select(
    monkeypatch: pytest.MonkeyPatch, *entries: KernelEntry, rows: int = 2, allow: bool = False
) -> tuple[str, list[Outcome]]:
    monkeypatch.setattr(registry, "KERNELS", entries)
    program = program_of(
        lambda call, n: call(torch.ops.effc.gated_activation.default, n["x"], n["y"], "silu"),
        ("x", "y"),
        shape=(rows, 4),
    )
    node = node_called(program, "gated_activation")
    node.meta["path"] = "mlp"
    result = SelectKernels("cpu", allow)(program, Journal())
    return node.meta["kernel"], result.outcomes


def test_reference_serves_where_nothing_else_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, outcomes = select(monkeypatch)
    assert kernel == "reference"
    assert outcomes == [Outcome("forward.gated_activation (from mlp)", "applied")]


def test_best_fitting_kernel_wins_and_the_better_ones_say_why_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entries = entry("plain", None, 1), entry("best", "never", 9), entry("good", "only_two_rows", 5)
    kernel, (outcome,) = select(monkeypatch, *entries)
    assert (kernel, outcome.reason) == ("good", "best: no such unit on cpu")
    kernel, (outcome,) = select(monkeypatch, *entries, rows=3)
    assert kernel == "plain"
    assert outcome.reason == "best: no such unit on cpu; good: 3 rows, not 2"


def test_fallback_is_an_error_unless_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KernelError) as caught:
        select(monkeypatch, entry("best", "never"))
    assert str(caught.value) == (
        "mlp: error[E0501]: no kernel for effc::gated_activation on cpu can serve this call "
        "(best: no such unit on cpu)\n"
        "help: set target.allow_reference = true to run the slow reference instead"
    )
    kernel, (outcome,) = select(monkeypatch, entry("best", "never"), allow=True)
    assert (kernel, outcome.reason) == ("reference", "best: no such unit on cpu")
