"""Programs as MLIR, through torch-mlir: one file per stage, a function named like the stage.

`effc::` operators are decomposed into `aten` first, so nothing in the file needs effc. The torch
dialect always works; linalg is what torch-mlir can lower. Weights are part of the text.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch.export import ExportedProgram

from effc.diagnostics import ExportError, did_you_mean
from effc.export.base import Exported, stage_files
from effc.export.decompositions import decompositions
from effc.export.explicit_views import make_views_explicit
from effc.export.pt2 import notes
from effc.export.single_file import check_files, new_file
from effc.export.torch_program import export_stage
from effc.ir.program import Program, Stage

# What lowers as it is; by default torch-mlir would turn it into views, see `explicit_views`.
_KEPT = "aten.flatten.using_ints,aten.unflatten.int"

# Dialect -> the pipelines of torch-mlir that lead there from its importer.
PIPELINES: dict[str, tuple[str, ...]] = {
    "torch": (),
    "linalg": (
        f"torchdynamo-export-to-torch-backend-pipeline{{backend-legal-ops={_KEPT}}}",
        "torch-backend-to-linalg-on-tensors-backend-pipeline{allow-non-finites=true}",
    ),
}


@dataclass(frozen=True)
class Mlir:
    """torch-mlir's importer.

    Attributes:
        dialect: "torch", or "linalg" for linalg on tensors.
    """

    format: ClassVar[str] = "mlir"

    dialect: str = "torch"

    def __post_init__(self) -> None:
        if self.dialect not in PIPELINES:
            raise ExportError(
                "E0801",
                f"there is no dialect {self.dialect!r}",
                help=did_you_mean(self.dialect, PIPELINES),
            )

    def export(self, program: Program, path: Path, *, force: bool = False) -> Exported:
        """Write one file per stage; see `Exporter.export`."""
        files = stage_files(program, path)
        check_files(files.values(), force=force)
        _torch_mlir()
        for name, file in files.items():
            text = self.text(program, program.stages[name])
            with new_file(file) as part:
                part.write_text(text, encoding="utf-8")
        return Exported(files, tuple(notes(program)))

    def text(self, program: Program, stage: Stage) -> str:
        """The module of one stage.

        Raises:
            ExportError: E0801, naming the first operator that has no place in the dialect.
        """
        fx = _torch_mlir()
        from torch_mlir.passmanager import PassManager  # type: ignore[attr-defined]

        exported = export_stage(program, stage).program
        try:
            module = _imported(fx, exported, stage.name, lowered=self.dialect != "torch")
            with module.context:
                for pipeline in PIPELINES[self.dialect]:
                    PassManager.parse(f"builtin.module({pipeline})").run(module.operation)
        except Exception as error:  # torch-mlir and torch.export raise what they like
            raise self._impossible(str(error).strip(), program) from error
        return str(module)

    def _impossible(self, text: str, program: Program) -> ExportError:
        if found := re.search(r"failed to legalize operation '([^']+)'", text):
            custom = re.search(r'name = "([^"]+)"', text)
            reason = f"{(custom or found)[1]} does not legalize"
        else:
            reason = text.split("\n", 1)[0][:300]
        other = "" if self.dialect == "torch" else "--dialect torch, or "
        return ExportError(
            "E0801",
            f"torch-mlir cannot express this program in the {self.dialect} dialect: {reason}",
            where=program.info.source,
            help=f"try {other}--to pt2",
        )


def _imported(fx: Any, exported: ExportedProgram, name: str, *, lowered: bool) -> Any:
    """The module in the torch dialect, with one function called `name`.

    A view that nobody can explain is right as it stands, but not where it is `lowered`.
    """
    context = fx.ir.Context()
    fx.torch_d.register_dialect(context)
    table = fx.get_decomposition_table() | decompositions()
    with warnings.catch_warnings():
        # PyTorch warns about its own use of what it deprecates.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        decomposed = exported.run_decompositions(table)
        unclear = make_views_explicit(decomposed)
        if unclear and lowered:
            raise ValueError(f"the sizes of {unclear[0].format_node()} cannot be compared")
        made = fx.FxImporter(context=context)
        made.import_frozen_program(decomposed, func_name=name)
    return made.module


def _torch_mlir() -> Any:
    """The importer of torch-mlir.

    Raises:
        ExportError: E0801 when it is not installed, or does not work here.
    """
    try:
        from torch_mlir import fx
    except ImportError as error:
        missing = error.name is not None and error.name.partition(".")[0] == "torch_mlir"
        reason = "is not installed" if missing else f"does not work here ({error})"
        raise ExportError(
            "E0801",
            f"exporting to mlir needs torch-mlir, which {reason}",
            help="pip install 'effc[mlir]'",
        ) from error
    return fx
