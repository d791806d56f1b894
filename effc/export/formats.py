"""The formats that `effc export` knows."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from effc.diagnostics import ExportError, did_you_mean
from effc.export.base import Exported, Exporter
from effc.ir.program import Program

# Format -> "module:Class", imported when it is asked for.
FORMATS: dict[str, str] = {
    "pt2": "effc.export.pt2:Pt2",
    "mlir": "effc.export.mlir:Mlir",
    "onnx": "effc.export.onnx.exporter:Onnx",
}


def export_program(
    program: Program, path: Path, format: str, *, force: bool = False, **options: object
) -> Exported:
    """Write a program in a foreign format.

    Args:
        program: a lowered program.
        path: the file to write; a program of several stages gets one file per stage beside it.
        format: a key of `FORMATS`.
        force: replace files that are there.
        options: the attributes of the exporter, e.g. `dialect` of `effc.export.mlir.Mlir`.

    Raises:
        ExportError: E0801 when the format is unknown or cannot express the program.
        ArtifactError: E0102 when a file is there already, E0103 when one cannot be written.
    """
    return exporter(format, **options).export(program, path, force=force)


def exporter(format: str, **options: object) -> Exporter:
    """The exporter of a format.

    Raises:
        ExportError: E0801 when there is none, or when it does not have these options.
    """
    if format not in FORMATS:
        raise ExportError(
            "E0801", f"there is no format {format!r}", help=did_you_mean(format, FORMATS)
        )
    module, _, name = FORMATS[format].partition(":")
    made = getattr(import_module(module), name)
    if unknown := options.keys() - made.__dataclass_fields__.keys():
        raise ExportError(
            "E0801",
            f"exporting to {format} has no option {sorted(unknown)[0]!r}",
            help=did_you_mean(sorted(unknown)[0], made.__dataclass_fields__),
        )
    return made(**options)
