"""From a plan to a lowered program: on a copy, so that several plans can be tried."""

from __future__ import annotations

from effc.compilation import Compilation, Planned
from effc.cost.prediction import predict
from effc.ir.journal import Journal
from effc.pipeline import rewrite
from effc.progress import SILENT, Progress
from effc.report.build import untied_notes
from effc.spec.plan import Plan


def rewritten(planned: Planned, plan: Plan, progress: Progress = SILENT) -> Compilation:
    """Carry out a plan on a copy of the canonical program.

    Args:
        planned: the program, and what was said about it so far.
        plan: `planned.plan`, or one with less in it.
        progress: told of the step and of every verdict.
    """
    prediction = planned.prediction
    if plan is not planned.plan:
        prediction = predict(planned.program, planned.sites, plan, planned.policy)
    progress.step("rewriting")
    program = planned.program.copy()
    known = planned.journal
    journal = Journal(list(known.changes), list(known.misses), known.observers)
    verdicts = planned.verdicts + rewrite(program, planned.policy, plan, journal, progress)
    notes = dict.fromkeys([*program.notes, *plan.notes, *untied_notes(program)])
    return Compilation(
        program=program,
        policy=planned.policy,
        plan=plan,
        verdicts=verdicts,
        sites=planned.sites,
        notes=list(notes),
        journal=journal,
        bytes_before=planned.bytes_before,
        prediction=prediction,
    )
