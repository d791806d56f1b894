"""`effc show`: what is in an artifact."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effc.cli.frame import DebugFlag, JsonFlag
from effc.cli.output import print_json, print_table
from effc.cost.text import bytes_text
from effc.diagnostics import EffcError, did_you_mean

if TYPE_CHECKING:
    from effc.ir.program import Program, Stage


def show(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="A folder that `effc compile` wrote.")
    ],
    stage: Annotated[str | None, typer.Option("--stage", help="Only this stage.")] = None,
    text: Annotated[bool, typer.Option("--text", help="Print the program as Python.")] = False,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Show what is in an artifact."""
    from effc.ir.printer import print_stage
    from effc.runtime.loader import load_program

    program = load_program(artifact)
    stages = _chosen(program, stage)
    printed = {s.name: print_stage(s) for s in stages} if text else {}
    if json:
        print_json(_as_json(program, stages) | ({"text": printed} if text else {}))
    elif text:
        print("\n\n".join(printed.values()), end="")
    else:
        _print_facts(program, artifact)
        for chosen in stages:
            _print_stage_facts(chosen)


def _chosen(program: Program, name: str | None) -> list[Stage]:
    if name is None:
        return list(program.stages.values())
    if name not in program.stages:
        help = did_you_mean(name, program.stages)
        raise EffcError("E0101", f"there is no stage {name!r}", where="--stage", help=help)
    return [program.stages[name]]


def _as_json(program: Program, stages: list[Stage]) -> dict[str, object]:
    from effc.ir.facts import facts_to_json

    facts = facts_to_json(program)
    names = {stage.name for stage in stages}
    described = [s for s in facts["stages"] if s["name"] in names]  # type: ignore[attr-defined]
    operators = {stage.name: dict(_operators(stage)) for stage in stages}
    weights = {"bytes": program.weights.nbytes, "by_dtype": _bytes_by_dtype(program)}
    return facts | {"stages": described, "operators": operators, "weights": weights}


def _print_facts(program: Program, artifact: Path) -> None:
    info, weights = program.info, program.weights
    context = f", context {info.context}" if info.context else ""
    print(f"{artifact}: {info.family}{context}, from {info.source}")
    by_dtype = ", ".join(f"{bytes_text(n)} {d}" for d, n in _bytes_by_dtype(program).items())
    print(f"weights: {bytes_text(weights.nbytes)} in {len(weights)} tensors ({by_dtype})")
    for group in program.groups:
        sites = [site for site in program.cache_sites if site.group == group.name]
        formats = sorted({f"{site.key_format}/{site.value_format}" for site in sites})
        kept = f"the last {group.window} tokens" if group.window else "all tokens"
        print(f"cache {group.name}: {len(sites)} sites keep {kept} as {', '.join(formats)}")
    for entry in program.schedule:
        print(f"schedule: {entry.when} {entry.action} {entry.arguments or ''}".rstrip())
    for note in program.notes:
        print(f"note: {note}")


def _print_stage_facts(stage: Stage) -> None:
    kernels = Counter(str(node.meta["kernel"]) for node in stage.graph.nodes if _has_kernel(node))
    print(f"\nstage {stage.name}: {len(stage.graph.nodes)} nodes")
    print_table(
        ("input", "shape", "type", "role"),
        [
            (spec.name, f"[{', '.join(map(str, spec.shape))}]", str(spec.dtype)[6:], spec.role)
            for spec in stage.inputs
        ],
    )
    print(f"results: {', '.join(stage.outputs)}")
    if kernels:
        print("kernels: " + ", ".join(f"{name} {n}x" for name, n in kernels.most_common()))
    print_table(("calls", "operator"), [(n, name) for name, n in _operators(stage)])


def _has_kernel(node: object) -> bool:
    return bool(node.meta.get("kernel"))  # type: ignore[attr-defined]


def _operators(stage: Stage) -> list[tuple[str, int]]:
    from effc.ir.opset import name_of

    calls = (name_of(n.target) for n in stage.graph.nodes if n.op == "call_function")
    return Counter(str(name) for name in calls).most_common()


def _bytes_by_dtype(program: Program) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for weight in program.weights.values():
        counts[str(weight.dtype).removeprefix("torch.")] += weight.nbytes
    return dict(counts.most_common())
