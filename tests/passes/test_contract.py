"""What every registered pass must keep, checked for all of them from one table."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

from effc.diagnostics import PassError
from effc.ir.journal import Journal
from effc.ir.manager import PassManager
from effc.ir.passbase import Outcome, Pass, PassStage, Semantics
from effc.ir.printer import print_program
from effc.ir.program import Program
from effc.ir.verify import verify
from effc.kernels.cases import excess
from effc.passes import registry
from tests.conftest import Golden
from tests.passes.case import PassCase
from tests.passes.cases import CASES
from tests.programs import Inputs, decode_inputs, run, run_passes, run_text, same_bits

EVERY_PASS = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
STAGES = {"CANONICAL": (PassStage.NORMALIZE, PassStage.RAISE),
          "TRANSFORMING": (PassStage.TRANSFORM,),
          "LOWERING": (PassStage.LOWER,)}  # fmt: skip


def test_every_registered_pass_has_a_case() -> None:
    registered = [where for table in STAGES for where in getattr(registry, table)]
    assert sorted(case.location for case in CASES) == sorted(registered)


@pytest.mark.parametrize("table", STAGES)
def test_tables_hold_passes_of_their_stages(table: str) -> None:
    for where in getattr(registry, table):
        assert registry.locate(where).stage in STAGES[table], where


def test_names_are_unique_kebab_case() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", name) for name in names)


@EVERY_PASS
def test_pass_is_a_frozen_dataclass(case: PassCase) -> None:
    cls = registry.locate(case.location)
    assert issubclass(cls, Pass)
    assert cls.__dataclass_params__.frozen
    assert set(cls.after) <= {other.name for other in CASES}, "waits for a pass that is not there"
    with pytest.raises(dataclasses.FrozenInstanceError):
        case.make().anything = 1  # type: ignore[attr-defined]


@EVERY_PASS
def test_module_shows_before_and_after(case: PassCase) -> None:
    text = inspect.getdoc(sys.modules[case.make().__module__]) or ""
    assert re.search(r"^Before:\n(    .*\n)+After:\n(    .*\n?)+", text, re.MULTILINE), text


@EVERY_PASS
def test_golden_program(case: PassCase, golden: Golden) -> None:
    program = case.program()
    before = print_program(program)
    journal, (verdict,) = run_passes(program, case.make())
    misses = [f"# near miss of {m.rule} at {m.node}: {m.reason}" for m in journal.misses]
    golden.check("\n".join(["# before", before, "# after", print_program(program), *misses]))
    assert (verdict.applied, verdict.status) == (case.applied, "changed")


@EVERY_PASS
def test_journal_tells_what_the_pass_made(case: PassCase) -> None:
    program, p, journal = case.program(), case.make(), Journal()
    old = {node for _, node in program.nodes()}
    assert p(program, journal).modified
    assert journal.changes == journal.by(p.name)
    inserted = {change.node for change in journal.changes if change.kind in ("insert", "input")}
    new = {node.name for _, node in program.nodes() if node not in old}
    assert new <= inserted
    made = [n for _, n in program.nodes() if n not in old and n.op != "placeholder"]
    assert all(n.meta["made_by"] == p.name and "path" in n.meta and "layer" in n.meta for n in made)


@EVERY_PASS
def test_second_run_changes_nothing(case: PassCase) -> None:
    program = case.program()
    run_passes(program, case.make())
    text = print_program(program)
    try:
        result = case.make()(program, Journal())
    except PassError as refusal:  # a pass may demand a program that it has not seen yet
        assert refusal.code == "E0405"
    else:
        assert not result.modified
        assert result.count("applied") == 0
    assert print_program(program) == text


@EVERY_PASS
def test_copy_of_the_program_is_untouched(case: PassCase) -> None:
    program = case.program()
    kept, text = program.copy(), print_program(program)
    names = set(kept.weights)
    run_passes(program, case.make())
    assert print_program(kept) == text
    assert set(kept.weights) == names
    verify(kept, types=True)


@EVERY_PASS
def test_printed_text_computes_the_same_bits(case: PassCase) -> None:
    program = case.program()
    for passes in ([case.make()], []):
        stage = next(iter(program.stages))
        inputs = _inputs(case, program)
        assert same_bits(run_text(program, stage, inputs), run(program, stage, inputs))
        run_passes(program, *passes)


@EVERY_PASS
def test_numbers_change_no_more_than_declared(case: PassCase) -> None:
    program = case.program()
    before = run(program, next(iter(program.stages)), _inputs(case, program))
    exact = _exact(case)
    run_passes(program, case.make())
    after = run(program, next(iter(program.stages)), _inputs(case, program))
    semantics = case.make().semantics
    results = [name for name in before if name in after]
    assert results
    for name in results:
        left, right = before[name], after[name]
        assert (left.shape, left.dtype) == (right.shape, right.dtype)
        if semantics is Semantics.EXACT:
            assert torch.equal(left, right), name
        elif semantics is Semantics.ROUNDING:
            assert excess(right, exact[name], left) <= 0, name
        else:  # every lossy pass has a test of its own bound
            assert not torch.equal(left, right), name


def _inputs(case: PassCase, program: Program) -> Inputs:
    inputs = case.inputs()
    if "decode" in program.stages and "lengths" not in inputs:
        return decode_inputs(program, inputs["ids"])
    return inputs


def _exact(case: PassCase) -> dict[str, np.ndarray]:
    """The results before the pass with every float in float64."""
    if case.make().semantics is not Semantics.ROUNDING:
        return {}
    program = case.program()
    for name, weight in list(program.weights.items()):
        if weight.dtype.is_floating_point:
            program.weights.set(name, type(weight).of(weight.load().double()))
    inputs = {k: v.double() if v.is_floating_point() else v for k, v in case.inputs().items()}
    with patch.object(torch.Tensor, "float", _wide):
        results = run(program, next(iter(program.stages)), inputs)
    return {name: value.numpy() for name, value in results.items()}


def _wide(x: torch.Tensor) -> torch.Tensor:
    """What references compute in, when no precision is to be lost."""
    return x if x.dtype == torch.float64 else x.to(torch.float32)


class _Liar(Pass):
    name = "liar"
    stage = PassStage.NORMALIZE


class _ChangesBehindTheJournal(_Liar):
    def call(self, program: Program, journal: Journal) -> list[Outcome]:
        node = next(n for _, n in program.nodes() if n.op == "call_function")
        node.target = torch.ops.aten.neg.default
        return []


class _ReportsNothing(_Liar):
    def call(self, program: Program, journal: Journal) -> list[Outcome]:
        stage = program.stages["forward"]
        node = next(n for n in stage.graph.nodes if n.op == "call_function")
        self.rewriter(program, stage, journal).retarget(node, torch.ops.aten.neg.default)
        return []


class _ClaimsTooMuch(_Liar):
    def call(self, program: Program, journal: Journal) -> list[Outcome]:
        return [Outcome("somewhere", "applied")]


class _LeavesAnIllegalProgram(_Liar):
    def call(self, program: Program, journal: Journal) -> list[Outcome]:
        stage = program.stages["forward"]
        node = next(n for n in stage.graph.nodes if n.op == "call_function")
        self.rewriter(program, stage, journal).retarget(node, torch.ops.aten.neg_.default)
        return [Outcome(node.name, "applied")]


@pytest.mark.parametrize(
    ("liar", "text"),
    (
        (_ChangesBehindTheJournal, "'liar' changed the program behind the journal's back"),
        (_ReportsNothing, "'liar' changed the program but reports no place as applied"),
        (_ClaimsTooMuch, "'liar' reports places as applied but changed nothing"),
        (_LeavesAnIllegalProgram, "'liar' left an illegal program: forward.cos: error[E0406]"),
    ),
)
def test_lying_pass_is_caught(liar: type[Pass], text: str) -> None:
    program = _cosine()
    with pytest.raises(PassError) as caught:
        PassManager([liar()]).run(program, Journal())
    assert caught.value.code == "E0404"
    assert text in str(caught.value)


def _cosine() -> Program:
    from tests.programs import capture

    class Cosine(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.cos()

    return capture(Cosine(), torch.ones(2, 2))


def test_failed_requirement_leaves_the_program_alone() -> None:
    program = _cosine()
    text = print_program(program)
    pass_ = registry.locate("effc.passes.caching.insert_cache:InsertCache")()
    with pytest.raises(PassError, match="E0405.*it needs a stage 'forward' of ids, positions"):
        pass_(program, Journal())
    assert print_program(program) == text


def test_no_pass_keeps_state_in_its_module() -> None:
    """Mutable module-level lists and dicts outlive a compilation; constants are upper case."""
    folder = Path(__file__).parents[2] / "passes"
    for path in folder.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(
                node.value, ast.List | ast.Dict | ast.Set
            ):
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                assert isinstance(target, ast.Name) and target.id.isupper(), f"{path}:{node.lineno}"
