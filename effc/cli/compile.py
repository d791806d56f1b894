"""`effc compile`: from a model and a policy to an artifact."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effc.cli.frame import DebugFlag, JsonFlag
from effc.cli.output import bytes_text, print_json, print_table, progress_bar

if TYPE_CHECKING:
    from effc.compiler import Compilation, Verdict


def compile_(
    model: Annotated[Path, typer.Argument(help="A Hugging Face folder.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="The folder to make.")],
    spec: Annotated[
        Path | None, typer.Option("--spec", help="The policy; without one nothing is compressed.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an artifact at OUT.")] = False,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Compile a model under a policy into an artifact."""
    from effc.export.package import check_output, write_artifact

    started = time.perf_counter()
    check_output(out, force=force)  # before the compiler is even loaded
    from effc.compiler import compile_model

    with progress_bar(quiet=json) as progress:
        compilation = compile_model(model, spec, progress=progress.say)
        progress.say("writing")
        write_artifact(
            compilation.program,
            out,
            policy_text=compilation.policy.text if spec is not None else None,
            lock=compilation.lock,
            report=compilation.report,
            force=force,
            progress=progress.advance,
        )
    seconds = time.perf_counter() - started
    if json:
        print_json(_as_json(compilation, out, seconds))
    else:
        _print_verdicts(compilation, out, seconds)


def _as_json(compilation: Compilation, out: Path, seconds: float) -> dict[str, object]:
    return {
        "output": str(out),
        "seconds": seconds,
        "weight_bytes": compilation.program.weights.nbytes,
        "verdicts": [dataclasses.asdict(verdict) for verdict in compilation.verdicts],
        "notes": list(compilation.notes),
        "report": compilation.report,
    }


def _print_verdicts(compilation: Compilation, out: Path, seconds: float) -> None:
    header = ("pass", "matched", "applied", "skipped", "bytes", "time", "status", "detail")
    print_table(header, [_verdict_row(verdict) for verdict in compilation.verdicts])
    for note in compilation.notes:
        print(f"note: {note}")
    weights = compilation.program.weights.nbytes
    print(f"{out}: {bytes_text(weights)} of weights, compiled and written in {seconds:.1f} s")


def _verdict_row(verdict: Verdict) -> tuple[object, ...]:
    before, after = verdict.bytes_before, verdict.bytes_after
    changed = f"{bytes_text(before)} -> {bytes_text(after)}" if before != after else "-"
    return (
        verdict.pass_name,
        verdict.matched,
        verdict.applied,
        verdict.skipped,
        changed,
        f"{verdict.seconds:.2f} s",
        verdict.status,
        verdict.detail,
    )
