"""Passes leave alone what they do not know, and say what they almost rewrote."""

from __future__ import annotations

import pytest
import torch

from effc.diagnostics import EffcError
from effc.ir.journal import Journal
from effc.ir.passbase import Pass
from effc.ir.printer import print_program
from effc.ir.program import Program
from effc.passes import registry
from tests.passes.case import values
from tests.passes.near import RENAMED, Near, NearMisses
from tests.passes.near_misses import NEAR_MISSES
from tests.programs import run, same_bits

ROWS = pytest.mark.parametrize("row", NEAR_MISSES, ids=lambda row: row.make().name)
NEAR = [
    pytest.param(row, near, id=f"{row.make().name}-{near.name.replace(' ', '-')}")
    for row in NEAR_MISSES
    for near in row.near
]


def applied(p: Pass, program: Program) -> tuple[int, list[str]]:
    """How many places were rewritten, and all that the pass said of others."""
    journal = Journal()
    result = p(program, journal)
    reasons = [o.reason for o in result.outcomes if o.status != "applied"]
    return result.count("applied"), [miss.reason for miss in journal.misses] + reasons


def test_every_registered_pass_has_a_row() -> None:
    tables = (registry.CANONICAL, registry.TRANSFORMING, registry.LOWERING)
    registered = [where for table in tables for where in table]
    assert sorted(row.location for row in NEAR_MISSES) == sorted(registered)
    assert all(any(near.reason == RENAMED for near in row.near) for row in NEAR_MISSES)


@ROWS
def test_it_finds_nothing_where_there_is_nothing(row: NearMisses) -> None:
    program = row.unmatched()
    text = print_program(program)
    if row.refusal:
        with pytest.raises(EffcError) as caught:
            row.make()(program, Journal())
        assert row.refusal in caught.value.message
    else:
        assert applied(row.make(), program) == (0, [])
    assert print_program(program) == text


@pytest.mark.parametrize(("row", "near"), NEAR)
def test_it_says_what_it_almost_rewrote(row: NearMisses, near: Near) -> None:
    program, p = near.build(), (near.make or row.make)()
    inputs = {name: values(2, 3, 4, 8, seed=i) for i, name in enumerate("xyz")}
    before, text = program.copy(), print_program(program)
    if near.reason == RENAMED:
        assert applied(p, program)[0] > 0
        assert print_program(program) != text
        return
    try:
        count, said = applied(p, program)
    except EffcError as refusal:
        count, said = 0, [refusal.message]
    assert count == 0
    assert print_program(program) == text
    assert [reason for reason in said if near.reason in reason] or (not said and not near.reason)
    if set(inputs) == {spec.name for stage in program.stages.values() for spec in stage.inputs}:
        with torch.inference_mode():
            assert same_bits(run(program, "forward", inputs), run(before, "forward", inputs))
