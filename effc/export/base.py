"""What an exporter is: one way to hand a program to the outside world."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Protocol

from effc.ir.program import Program


class Exporter(Protocol):
    """Writes programs in a foreign format.

    Attributes:
        format: the name on the command line (`effc export --to`), e.g. "onnx".
        suffix: the usual ending of the file, e.g. ".onnx".
    """

    format: ClassVar[str]
    suffix: ClassVar[str]

    def export(self, program: Program, path: Path) -> list[Path]:
        """Write a program.

        Args:
            program: a lowered program.
            path: the file to write; further files go beside it.

        Returns:
            Every file written.

        Raises:
            ExportError: E0801 when the format cannot express the program.
            ArtifactError: E0103 when a file cannot be written.
        """
        ...
