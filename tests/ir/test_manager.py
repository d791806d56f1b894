"""Order, exclusion and account of passes."""

from __future__ import annotations

import itertools

import pytest

from effc.diagnostics import PassError
from effc.ir.journal import Journal
from effc.ir.manager import PassManager, Verdict, order, verdict_of
from effc.ir.passbase import Outcome, Pass, PassResult, PassStage
from effc.ir.program import Program
from effc.passes import registry
from tests.ir.graphs import aten, program_of


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
