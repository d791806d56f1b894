"""`effc compile`: from a model and a policy to an artifact."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effc.cli.frame import DebugFlag, JsonFlag
from effc.cli.output import print_json
from effc.cli.policy_flags import PresetFlag, SetFlag, SpecFlag
from effc.cli.progress import peak_memory, shown_progress
from effc.cli.summary import summary_lines
from effc.cli.verdicts import VerdictTable, summary_warning
from effc.cost.text import bytes_text
from effc.diagnostics import EffcError
from effc.export.claim import Output, claim

if TYPE_CHECKING:
    from effc.compilation import Compilation
    from effc.export.safetensors_writer import WeightsFile
    from effc.progress import Progress
    from effc.spec.schema import Policy


def compile_(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A Hugging Face folder.")],
    out: Annotated[Path | None, typer.Option("--output", "-o", help="The folder to make.")] = None,
    spec: SpecFlag = None,
    preset: PresetFlag = None,
    set: SetFlag = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and stop, as `effc plan` does.")
    ] = False,
    locked: Annotated[
        bool,
        typer.Option(
            "--locked", help="Make exactly what the policy.lock beside the policy describes."
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an artifact at OUT.")] = False,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Compile a model under a policy into an artifact.

    An artifact appears whole or not at all. After a kill the same command goes on with the weights
    that were finished. A broken gate ends with exit code 3 and writes nothing.
    """
    given = {"spec": spec, "presets": tuple(preset or ()), "overrides": tuple(set or ())}
    if dry_run:
        from effc.cli.plan import show_plan

        show_plan(model, given, as_json=json)
        return
    if out is None:
        raise EffcError("E0101", "there is no place to write to", help="give a folder with -o")
    started = time.perf_counter()
    table = VerdictTable()
    with claim(out, force=force) as output:
        policy = _read_policy(given)  # before the compiler is even loaded
        lock = _Lock.beside(spec) if locked else None
        notes = lock.check_early(policy, model) if lock else []
        with shown_progress(table, quiet=json) as progress:
            done = _compile(model, policy, progress)
            if lock:
                lock.check(done.lock)
            progress.step("writing", str(out))
            text = policy.text if any(given.values()) else None
            written = _write(done, output, text, lock, progress)
    result = _Result(out, done, written, [*notes, *done.notes], time.perf_counter() - started)
    if json:
        print_json(result.as_json())
    else:
        _print(result, table)


def _read_policy(given: Mapping[str, Any]) -> Policy:
    from effc.passes.registry import method_infos
    from effc.spec.parse import load_policy

    return load_policy(
        given["spec"], method_infos(), presets=given["presets"], overrides=given["overrides"]
    )


@dataclasses.dataclass(frozen=True)
class _Lock:
    """What `--locked` must reproduce."""

    path: Path
    data: dict[str, Any]

    @staticmethod
    def beside(spec: Path | None) -> _Lock:
        from effc.lock import LOCK, read_lock

        if spec is None:
            raise EffcError(
                "E0101",
                "--locked needs --spec",
                help="the lock lies beside the policy: give the policy.toml of an artifact",
            )
        path = spec.with_name(LOCK)
        return _Lock(path, read_lock(path))

    def check_early(self, policy: Policy, model: Path) -> list[str]:
        """What can be compared before anything is compiled; notes on what may differ."""
        from effc.lock import describe

        return self.check(describe(policy, model))

    def check(self, found: dict[str, Any]) -> list[str]:
        from effc.lock import check_lock

        return check_lock(self.data, found, self.path)


def _compile(model: Path, policy: Policy, progress: Progress) -> Compilation:
    progress.step("loading the compiler")
    from effc.compiler import compile_model

    return compile_model(model, policy, progress=progress)


def _write(
    done: Compilation,
    output: Output,
    policy_text: str | None,
    lock: _Lock | None,
    progress: Progress,
) -> WeightsFile:
    from effc.export.package import write_artifact
    from effc.report import render_html

    return write_artifact(
        done.program,
        output,
        policy_text=policy_text,
        lock=done.lock,
        report=done.report,
        html=render_html(done.report),
        resume=bool(done.lock["inputs"]),
        locked=lock.data["weights"] if lock else None,
        progress=progress,
    )


@dataclasses.dataclass(frozen=True)
class _Result:
    """What there is to say at the end."""

    out: Path
    done: Compilation
    written: WeightsFile
    notes: list[str]
    seconds: float

    def as_json(self) -> dict[str, object]:
        return {
            "output": str(self.out),
            "seconds": self.seconds,
            "peak_memory": peak_memory(),
            "weight_bytes": self.done.program.weights.nbytes,
            "weights": self.written.digest,
            "tensors": len(self.written.digests),
            "reused": self.written.reused,
            "verdicts": [dataclasses.asdict(verdict) for verdict in self.done.verdicts],
            "notes": self.notes,
            "report": self.done.report,
        }


def _print(result: _Result, table: VerdictTable) -> None:
    for line in table.missing(result.done.verdicts):
        print(line)
    for line in summary_lines(result.done.report):
        print(line)
    for note in result.notes:
        print(f"note: {note}")
    if warning := summary_warning(result.done.verdicts):
        print(warning, file=sys.stderr)
    written = result.written
    if written.reused:
        print(f"{written.reused} of {len(written.digests)} tensors were finished already")
    weights = bytes_text(result.done.program.weights.nbytes)
    print(
        f"{result.out}: {weights} of weights, compiled and written in {result.seconds:.1f} s, "
        f"peak memory {bytes_text(peak_memory())}"
    )
