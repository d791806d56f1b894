"""What an exporter is: one way to hand a program to the outside world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from effc.diagnostics import ExportError
from effc.ir.program import Program
from effc.ir.stage_calls import called


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        files: stage -> its file.
        notes: what the user should know about them.
        beside: further files that belong to them, e.g. weights kept apart.
    """

    files: Mapping[str, Path]
    notes: tuple[str, ...]
    beside: tuple[Path, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in (*self.files.values(), *self.beside))


class Exporter(Protocol):
    """Writes programs in a foreign format.

    Attributes:
        format: the name on the command line (`effc export --to`), e.g. "onnx".
    """

    format: ClassVar[str]

    def export(self, program: Program, path: Path, *, force: bool = False) -> Exported:
        """Write a program.

        Args:
            program: a lowered program.
            path: the file to write, see `stage_files`.
            force: replace files that are there.

        Raises:
            ExportError: E0801 when the format cannot express the program.
            ArtifactError: E0102 when a file is there already, E0103 when one cannot be written.
        """
        ...


def stage_files(program: Program, path: Path) -> dict[str, Path]:
    """The file of each stage: `path` for a single one, else `<stem>-<stage><suffix>` beside it.

    Raises:
        ExportError: E0801, a stage is a branch or loop body of another and no file of its own.
    """
    for stage in program.stages.values():
        if inner := called(stage):
            raise ExportError(
                "E0801",
                f"stage {stage.name!r} runs {inner[0]!r} as a branch or loop, which no export "
                "expresses yet",
                where=program.info.source,
                help="use the artifact itself with effc.load()",
            )
    if len(program.stages) == 1:
        return dict.fromkeys(program.stages, path)
    return {name: path.with_name(f"{path.stem}-{name}{path.suffix}") for name in program.stages}
