"""`effc verify`: what an artifact lost against the original model, and whether it is whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effc.cli.frame import DebugFlag, JsonFlag
from effc.cli.output import print_error, print_json
from effc.cli.quality import quality_lines
from effc.cost.text import bytes_text
from effc.diagnostics import EffcError, ExitCode, GateError

if TYPE_CHECKING:
    from effc.api import CompiledModel
    from effc.ir.program import Program
    from effc.spec.schema import QualitySpec

Against = Annotated[
    Path | None,
    typer.Option("--against", metavar="MODEL", help="The original: a model folder or an artifact."),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="A text file; default: that of the policy, else sampled text."),
]
Tokens = Annotated[
    int | None, typer.Option("--tokens", help="How many tokens to compare on.", min=2)
]
Integrity = Annotated[
    bool, typer.Option("--integrity", help="Check every byte against the manifest.")
]
Timing = Annotated[bool, typer.Option("--timing", help="Also time both models, taking turns.")]


def verify(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="A folder that `effc compile` wrote.")
    ],
    against: Against = None,
    data: Data = None,
    tokens: Tokens = None,
    integrity: Integrity = False,
    timing: Timing = False,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> int:
    """Measure an artifact against the original model, and check its gates.

    Returns:
        The exit code: 3 when a gate is broken, or when a method of the plan did not act.
    """
    if against is None and not integrity:
        raise EffcError(
            "E0101",
            "there is nothing to verify the artifact against",
            help="give --against MODEL, --integrity, or both",
        )
    found: dict[str, Any] = {"artifact": str(artifact)}
    if integrity:
        found["integrity"] = _check_bytes(artifact)
    if against is not None:
        found |= {"against": str(against)}
        found["quality"] = _compare(artifact, against, data, tokens, timing)
    failure = _failure(found.get("quality"), artifact)
    if json:
        print_json(found if failure is None else found | {"error": failure.to_dict()})
    else:
        _print(found)
        if failure is not None:
            print_error(failure, as_json=False)
    return ExitCode.DONE if failure is None else failure.exit_code


def _check_bytes(artifact: Path) -> dict[str, int]:
    from effc.runtime.loader import check_integrity, read_manifest

    total = 0

    def note(name: str, done: int, size: int) -> None:
        nonlocal total
        total = done

    check_integrity(artifact, progress=note)
    manifest = read_manifest(artifact)
    files = sum(record.bytes for record in manifest.files.values())
    return {"files": len(manifest.files), "tensors": len(manifest.tensors), "bytes": files + total}


def _compare(
    artifact: Path, against: Path, data: Path | None, tokens: int | None, timing: bool
) -> dict[str, Any]:
    from effc.api import load
    from effc.cli.opened import methods_of, open_other, policy_of
    from effc.settings import settings
    from effc.spec.schema import QualitySpec

    model, policy = load(artifact), policy_of(artifact)
    quality = (policy.quality if policy else None) or QualitySpec()
    if data is not None:
        quality = replace(quality, data=str(data))
    if tokens is not None:
        quality = replace(quality, tokens=tokens)
    original = open_other(against, model.program)
    chosen = {
        "quality": quality,
        "methods": methods_of(dict(model.report)),
        "timing": timing or quality.max_time_ratio is not None,
        "kernels": settings().kernels,
    }
    return _measured(original, model, quality, chosen)


def _measured(
    original: Program, model: CompiledModel, quality: QualitySpec, chosen: dict[str, Any]
) -> dict[str, Any]:
    from effc.evaluate.gates import refuse_unmeasurable
    from effc.evaluate.measure import measure, measure_outputs
    from effc.evaluate.subject import Subject
    from effc.evaluate.texts import evaluation_text

    first = Subject(original, kernels=chosen["kernels"])
    refuse_unmeasurable(quality, generates=first.generates, where=original.info.source)
    if not first.generates:
        return measure_outputs(first, model.program, **chosen)
    text = evaluation_text(first.engine, original.info, model.tokenizer, quality)
    return measure(first, model.program, text, **chosen)


def _failure(quality: dict[str, Any] | None, artifact: Path) -> GateError | None:
    """Why an artifact does not pass, None if it does."""
    from effc.evaluate.gates import describe

    if quality is None:
        return None
    broken = [describe(gate) for gate in quality["gates"] if not gate["held"]]
    idle = [f"{e['method']} did not act" for e in quality["fired"] if not e["ok"]]
    if not broken and not idle:
        return None
    return GateError(
        "E0408",
        "; ".join([*broken, *idle]),
        where=str(artifact),
        help="compile again: the compiler names the guilty rule and its worst step"
        if broken
        else "compile again with this version of effc",
    )


def _print(found: dict[str, Any]) -> None:
    if whole := found.get("integrity"):
        print(
            f"{found['artifact']}: {whole['files']} files and {whole['tensors']} tensors, "
            f"{bytes_text(whole['bytes'])}, are as they were written"
        )
    if "quality" in found:
        print(f"{found['artifact']} against {found['against']}")
        print("\n".join(quality_lines(found["quality"])))
