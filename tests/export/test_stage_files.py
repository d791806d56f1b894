"""What gets a file of its own when a program is exported."""

from __future__ import annotations

from pathlib import Path

import pytest

from effc.diagnostics import ExportError
from effc.export.formats import export_program
from tests.ir.test_stage_calls import program


@pytest.mark.parametrize("format", ["onnx", "pt2", "mlir"])
def test_branches_and_loop_bodies_are_refused_before_anything_is_written(
    format: str, tmp_path: Path
) -> None:
    with pytest.raises(
        ExportError, match=r"'forward' runs 'more_2' as a branch or loop"
    ) as refused:
        export_program(program(), tmp_path / f"m.{format}", format)
    assert refused.value.code == "E0801"
    assert list(tmp_path.iterdir()) == []
