"""`effc plan`: what a policy would do to a model, and at what cost; nothing is rewritten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effc.cli.frame import DebugFlag, JsonFlag
from effc.cli.output import print_json
from effc.cli.policy_flags import PresetFlag, SetFlag, SpecFlag
from effc.cli.progress import shown_progress
from effc.cli.verdicts import VerdictTable
from effc.progress import Progress

if TYPE_CHECKING:
    from effc.compilation import Planned


def plan(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A Hugging Face folder.")],
    spec: SpecFlag = None,
    preset: PresetFlag = None,
    set: SetFlag = None,
    measure_machine: Annotated[
        bool,
        typer.Option(
            help="For the time bounds on a CPU: measure this machine, or take nominal figures."
        ),
    ] = True,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Show what a policy would do to a model, and at what cost.

    No weight is read. Exit codes are those of a compile that stops here: 2 for a policy that
    contradicts itself or asks for too much, 4 for a rule that matches nothing.
    """
    show_plan(
        model,
        {"spec": spec, "presets": preset or (), "overrides": set or ()},
        measure_machine=measure_machine,
        as_json=json,
    )


def show_plan(
    model: Path, policy: Mapping[str, Any], *, measure_machine: bool = True, as_json: bool = False
) -> None:
    """Plan and print; also what `effc compile --dry-run` does.

    Args:
        model: the source.
        policy: `spec`, `presets` and `overrides`, as the compiler takes them.
        measure_machine: measure this CPU for the time bounds, where the target is one.
        as_json: print one JSON object.
    """
    with shown_progress(VerdictTable(), quiet=as_json) as shown:
        progress = _StepsOnly(shown)
        progress.step("loading the compiler")
        from effc.compiler import plan_model

        planned = plan_model(model, **policy, progress=progress)
        if measure_machine and planned.policy.target.device == "cpu":
            progress.step("measuring this machine")
            planned = measured(planned)
    print_plan(planned, as_json=as_json)


class _StepsOnly(Progress):
    """Says what is being done; a plan has its own account of what passes would do."""

    def __init__(self, shown: Progress) -> None:
        self._shown = shown

    def step(self, name: str, detail: str = "") -> None:
        """Name the step that begins."""
        self._shown.step(name, detail)

    def advance(self, name: str, done: int, total: int) -> None:
        """Report progress within the step."""
        self._shown.advance(name, done, total)


def measured(planned: Planned) -> Planned:
    """The plan with time bounds for this machine's CPU."""
    from effc.cost.machine import measure_cpu
    from effc.cost.prediction import on_machine

    return replace(planned, prediction=on_machine(planned.prediction, measure_cpu()))


def print_plan(planned: Planned, *, as_json: bool = False) -> None:
    """Print a plan as text, or as one JSON object."""
    if as_json:
        print_json(plan_json(planned))
        return
    from effc.cli.plan_text import print_sections

    print_sections(planned)


def plan_json(planned: Planned) -> dict[str, Any]:
    """What `effc plan --json` prints."""
    info, chosen = planned.program.info, planned.plan
    return {
        "model": {
            "family": info.family,
            "source": info.source,
            "dtype": str(info.dtype).removeprefix("torch."),
            "context": info.context,
            "sites": len(planned.sites),
        },
        "rules": [asdict(match) for match in chosen.matches],
        "steps": [
            {
                "site": step.site.name,
                "aspect": step.aspect,
                "method": step.method,
                "options": dict(step.options),
                "table": step.table,
                "rule": step.rule,
            }
            for step in chosen.steps
        ],
        "skipped": [{"site": site, "reason": reason} for site, reason in chosen.skipped],
        "prediction": planned.prediction,
        "notes": list(dict.fromkeys(planned.notes)),
    }
