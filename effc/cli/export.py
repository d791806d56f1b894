"""`effc export`: an artifact for another runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from effc.cli.frame import DebugFlag, JsonFlag
from effc.cli.output import print_json
from effc.cost.text import bytes_text
from effc.diagnostics import EffcError


def export(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="A folder that `effc compile` wrote.")
    ],
    to: Annotated[str, typer.Option("--to", help="The format: pt2 or mlir.")],
    out: Annotated[
        Path,
        typer.Option("-o", "--output", help="The file to write; several stages: one file each."),
    ],
    dialect: Annotated[
        str | None, typer.Option("--dialect", help="Of --to mlir: torch (default) or linalg.")
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

    if dialect is not None and to != "mlir":
        raise EffcError("E0101", "--dialect goes with --to mlir only", help="leave it out")
    chosen = exporter(to, **({} if dialect is None else {"dialect": dialect}))
    program = load_program(artifact)
    check_files(stage_files(program, out).values(), force=force)
    done = chosen.export(program, out, force=force)
    weights = program.weights.nbytes
    if json:
        print_json(
            {
                "format": to,
                "files": {stage: str(path) for stage, path in done.files.items()},
                "bytes": done.nbytes,
                "weights": weights,
                "notes": list(done.notes),
            }
        )
        return
    for stage, path in done.files.items():
        print(f"{path}: stage {stage}, {bytes_text(path.stat().st_size)}")
    print(f"the artifact's weights take {bytes_text(weights)}")
    for note in done.notes:
        print(f"note: {note}")
