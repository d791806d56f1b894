"""`effc export`: an artifact for another runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effc.cli.frame import DebugFlag, JsonFlag
from effc.cli.output import print_json
from effc.cost.text import bytes_text
from effc.diagnostics import EffcError

if TYPE_CHECKING:
    from effc.export.base import Exported

# Format -> the options that it has.
OPTIONS: dict[str, tuple[str, ...]] = {
    "onnx": ("dialect", "opset", "external_data", "genai_config"),
    "mlir": ("dialect",),
    "pt2": (),
}


def export(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="A folder that `effc compile` wrote.")
    ],
    to: Annotated[str, typer.Option("--to", help="The format: onnx, pt2 or mlir.")],
    out: Annotated[
        Path,
        typer.Option("-o", "--output", help="The file to write; several stages: one file each."),
    ],
    dialect: Annotated[
        str | None,
        typer.Option(
            "--dialect",
            help="Of onnx: ort or standard; of mlir: torch or linalg. Default: the first.",
        ),
    ] = None,
    opset: Annotated[
        int | None, typer.Option("--opset", help="Of --to onnx: version of standard operators.")
    ] = None,
    external_data: Annotated[
        bool | None,
        typer.Option(
            "--external-data/--no-external-data",
            help="Of --to onnx: weights in a file beside the model; default: beyond 256 MiB.",
        ),
    ] = None,
    genai_config: Annotated[
        bool | None,
        typer.Option("--genai-config", help="Of --to onnx: files for onnxruntime-genai too."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Write an artifact for another runtime."""
    from effc.export.base import stage_files
    from effc.export.formats import exporter
    from effc.export.single_file import check_files
    from effc.runtime.loader import load_program

    asked = {
        "dialect": dialect,
        "opset": opset,
        "external_data": external_data,
        "genai_config": genai_config,
    }
    chosen = exporter(to, **_given(to, asked))
    program = load_program(artifact)
    check_files(stage_files(program, out).values(), force=force)
    done = chosen.export(program, out, force=force)
    (_print_json if json else _print_lines)(to, done, program.weights.nbytes)


def _given(to: str, asked: Mapping[str, object]) -> dict[str, object]:
    """The options given, all of which the format has.

    Raises:
        EffcError: E0101.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    for name in given:
        if to in OPTIONS and name not in OPTIONS[to]:
            flag = f"--{name.replace('_', '-')}"
            homes = " and ".join(f"--to {form}" for form, names in OPTIONS.items() if name in names)
            raise EffcError("E0101", f"{flag} goes with {homes} only", help="leave it out")
    return given


def _print_json(to: str, done: Exported, weights: int) -> None:
    print_json(
        {
            "format": to,
            "files": {stage: str(path) for stage, path in done.files.items()},
            "beside": [str(path) for path in done.beside],
            "bytes": done.nbytes,
            "weights": weights,
            "notes": list(done.notes),
        }
    )


def _print_lines(to: str, done: Exported, weights: int) -> None:
    for stage, path in done.files.items():
        print(f"{path}: stage {stage}, {bytes_text(path.stat().st_size)}")
    for path in done.beside:
        print(f"{path}: {bytes_text(path.stat().st_size)}")
    print(f"the artifact's weights take {bytes_text(weights)}")
    for note in done.notes:
        print(f"note: {note}")
