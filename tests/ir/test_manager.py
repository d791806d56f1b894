"""Order, exclusion and account of passes."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from effc.diagnostics import PassError
from effc.ir.journal import Change, Journal
from effc.ir.manager import PassManager, Verdict, order, verdict_of
from effc.ir.passbase import Outcome, Pass, PassResult, PassStage
from effc.ir.program import Program
from effc.passes import registry
from tests.ir.graphs import aten, program_of
from tests.programs import capture, run, same_bits


def named(
    name: str,
    stage: PassStage = PassStage.NORMALIZE,
    after: tuple[str, ...] = (),
    conflicts: dict[str, str] | None = None,
) -> Pass:
    """A pass that does nothing, called `name`."""

    def call(self: Pass, program: Program, journal: Journal) -> list[Outcome]:
        return []

    members = {"name": name, "stage": stage, "after": after, "conflicts": conflicts or {}}
    return type(name, (Pass,), {**members, "call": call})()


def ordered(*passes: Pass) -> list[str]:
    return [p.name for p in order(passes)]


def test_stages_follow_one_another() -> None:
    passes = [named(stage.name, stage) for stage in PassStage]
    for given in itertools.permutations(passes):
        assert ordered(*given) == ["NORMALIZE", "RAISE", "TRANSFORM", "LOWER"]


def test_after_wins_over_the_order_given() -> None:
    a, b, c = named("a", after=("b",)), named("b", after=("c",)), named("c")
    for given in itertools.permutations([a, b, c]):
        assert ordered(*given) == ["c", "b", "a"]


def test_otherwise_the_order_given_stays() -> None:
    for given in itertools.permutations([named("a"), named("b"), named("c")]):
        assert ordered(*given) == [p.name for p in given]


def test_after_a_pass_that_is_not_there() -> None:
    assert ordered(named("a", after=("nothing",))) == ["a"]


def test_one_order_for_the_registry() -> None:
    passes = [registry.locate(where)() for where in registry.CANONICAL]
    expected = [p.name for p in order(passes)]
    assert expected.index("remove-no-ops") < expected.index("fold-constants")
    assert ordered(*order(passes)) == expected


@pytest.mark.parametrize(
    ("passes", "cycle"),
    (
        ((named("a", after=("a",)),), {"a"}),
        ((named("a", after=("b",)), named("b", after=("a",)), named("c")), {"a", "b"}),
        ((named("a", after=("late",)), named("late", PassStage.LOWER)), {"a", "late"}),
    ),
)
def test_cycle_is_named(passes: tuple[Pass, ...], cycle: set[str]) -> None:
    with pytest.raises(PassError) as caught:
        order(passes)
    assert caught.value.code == "E0402"
    start, _, listed = caught.value.message.partition(": ")
    assert start == "passes wait for one another"
    assert set(listed.split(" -> ")) == cycle


def test_conflict_is_refused_with_its_reason() -> None:
    with pytest.raises(PassError) as caught:
        order([named("a", conflicts={"b": "both rewrite the cache"}), named("b")])
    assert str(caught.value) == (
        "error[E0403]: 'a' and 'b' exclude one another: both rewrite the cache\n"
        "help: keep one of them"
    )
    assert ordered(named("a", conflicts={"b": "no"}), named("c")) == ["a", "c"]


def test_observer_sees_every_pass_in_order() -> None:
    program = program_of(lambda call, n: call(aten.sin.default, n["x"]))
    seen: list[tuple[str, bool]] = []
    manager = PassManager(
        [named("b", PassStage.LOWER), named("a")],
        observe=lambda p, _, result: seen.append((p.name, result.modified)),
    )
    verdicts = manager.run(program, Journal())
    assert seen == [("a", False), ("b", False)]
    assert [(v.pass_name, v.status) for v in verdicts] == [("a", "no change"), ("b", "no change")]


@pytest.mark.parametrize(("check", "caught_by"), ((0, None), (1, "second"), (2, "first")))
def test_when_programs_are_verified(check: int, caught_by: str | None) -> None:
    program = program_of(lambda call, n: call(aten.sin.default, n["x"]))
    program.stages["forward"].outputs = ()  # illegal from the start
    manager = PassManager([named("first"), named("second")], check=check)
    if caught_by is None:
        manager.run(program, Journal())
        return
    with pytest.raises(PassError, match=f"E0404.*pass '{caught_by}' left an illegal program"):
        manager.run(program, Journal())


def test_no_passes_no_verdicts() -> None:
    program = program_of(lambda call, n: n["x"])
    assert PassManager([]).run(program, Journal()) == []


def test_verdict_condenses_outcomes() -> None:
    outcomes = [
        Outcome("a", "applied"),
        Outcome("b", "skipped", "too small"),
        Outcome("c", "skipped", "too small"),
        Outcome("d", "refused", "no kernel"),
    ]
    result = PassResult(outcomes, 100, 50, 0.5, modified=True)
    verdict = verdict_of(named("p"), result)
    assert verdict == Verdict("p", 4, 1, 3, 100, 50, 0.5, "changed", "too small; no kernel")


def test_bytes_are_those_that_stages_read() -> None:
    import torch

    weights = {"read": torch.ones(4), "unread": torch.ones(100)}
    program = program_of(lambda call, n: call(aten.add.Tensor, n["x"], n["read"]), weights=weights)
    unread = next(n for _, n in program.nodes() if n.target == "unread")
    program.stages["forward"].graph.erase_node(unread)
    (verdict,) = PassManager([named("p")]).run(program, Journal())
    assert (verdict.bytes_before, verdict.bytes_after) == (16, 16)


def changing(name: str, stage: PassStage, changes: int) -> Pass:
    """A pass that reports some changes of its own."""

    def run(self: Pass, program: Program, journal: Journal) -> PassResult:
        for index in range(changes):
            journal.record(Change(name, "forward", "replace", f"{name}_{index}"))
        return PassResult(modified=bool(changes))

    return type(name, (Pass,), {"name": name, "stage": stage, "__call__": run})()


@pytest.mark.parametrize("stop_after", (None, *range(9)))
def test_stopping_leaves_out_later_passes_of_the_canonical_form(stop_after: int | None) -> None:
    """After n rewrites, no pass that can be left out begins; what must run still does."""
    given = [
        ("a", PassStage.NORMALIZE, 2),
        ("b", PassStage.RAISE, 0),
        ("c", PassStage.RAISE, 3),
        ("d", PassStage.RAISE, 1),
        ("e", PassStage.TRANSFORM, 1),
        ("f", PassStage.LOWER, 1),
    ]
    journal, left_out, seen = Journal(), [], 0
    for name, stage, changes in given:
        stopped = stop_after is not None and seen >= stop_after and stage <= PassStage.RAISE
        left_out += [name] if stopped else []
        seen += 0 if stopped else changes
    manager = PassManager([changing(*entry) for entry in given], stop_after=stop_after)
    verdicts = manager.run(program_of(lambda call, n: n["x"]), journal)
    assert [v.pass_name for v in verdicts] == [name for name, _, _ in given]
    assert [v.pass_name for v in verdicts if v.status == "left out"] == left_out
    assert len(journal.changes) == seen


class Written(nn.Module):
    """A dropout, a norm and a gate, written out in small steps."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(8))
        self.gate, self.up = (nn.Linear(8, 16) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.dropout(x, 0.5, self.training)
        x = self.scale * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))
        return nn.functional.silu(self.gate(x)) * self.up(x)


def test_a_program_means_the_same_wherever_rewriting_stops() -> None:
    """These passes are exact, so that bisecting over them finds the one that is not."""
    module, x = Written().eval(), torch.randn(3, 8)
    results, stop_after, complete = [], 0, False
    while not complete:
        program, journal = capture(module, x), Journal()
        passes = [registry.locate(where)() for where in registry.CANONICAL]
        verdicts = PassManager(passes, check=2, stop_after=stop_after).run(program, journal)
        complete = all(verdict.status != "left out" for verdict in verdicts)
        results.append(run(program, "forward", {"x": x}))
        stop_after = len(journal.changes) + 1
    assert len(results) >= 4
    assert all(same_bits(results[0], result) for result in results)
