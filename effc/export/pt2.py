"""Programs as `.pt2` files, one per stage.

    import torch, effc.ops
    decode = torch.export.load("model.pt2").module()

`effc::` operators stay what they are and run their references; `import effc.ops` registers them.
The file `effc.json` inside (`extra_files` of `torch.export.load`) describes inputs and results.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from effc.export import dense
from effc.export.base import Exported, stage_files
from effc.export.single_file import check_files, new_file
from effc.export.torch_program import TorchExport, export_stage
from effc.ir.program import Program
from effc.settings import version

DESCRIPTION = "effc.json"


@dataclass(frozen=True)
class Pt2:
    """`torch.export.save`."""

    format: ClassVar[str] = "pt2"

    def export(self, program: Program, path: Path, *, force: bool = False) -> Exported:
        """Write one file per stage; see `Exporter.export`."""
        files = stage_files(program, path)
        check_files(files.values(), force=force)
        for name, file in files.items():
            done = export_stage(program, program.stages[name])
            description = json.dumps(describe(program, done), indent=1)
            with new_file(file) as part:
                _save(done, part, description)
        return Exported(files, tuple(notes(program)))


def _save(done: TorchExport, part: Path, description: str) -> None:
    """Write into `part`.

    Raises:
        OSError: the archive could not be written.
    """
    try:
        torch.export.save(done.program, part, extra_files={DESCRIPTION: description})
    except RuntimeError as error:
        if "failed writing" not in str(error):
            raise
        raise OSError(str(error)) from error


def describe(program: Program, done: TorchExport) -> dict[str, object]:
    """What a caller of an exported stage must know, JSON-ready."""
    info = program.info
    return {
        "effc": version(),
        "family": info.family,
        "stage": done.stage,
        "inputs": [
            {
                "name": spec.name,
                "shape": list(spec.shape),
                "dtype": str(spec.dtype).removeprefix("torch."),
                "role": spec.role,
            }
            for spec in done.inputs
        ],
        "outputs": list(done.outputs),
        "context": info.context,
        "vocabulary": info.vocabulary,
        "eos": list(info.eos),
        "bos": info.bos,
        "pad": info.pad,
    }


def notes(program: Program) -> list[str]:
    """What an export differs in from the artifact."""
    if program.loop != "autoregressive":
        return []
    cost = dense.bytes_per_slot(program)
    windows = [group.name for group in program.groups if group.window is not None]
    found = [
        f"the cache is dense: each sequence takes {cost:,} bytes for every one of its S slots, "
        "used or not"
    ]
    if windows:
        found.append(
            f"a dense cache keeps tokens that {', '.join(windows)} would have dropped; "
            "they are masked"
        )
    return found
