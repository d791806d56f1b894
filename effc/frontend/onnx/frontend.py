"""The `onnx` frontend: what `effc compile model.onnx` starts with.

A decoder, exported with a cache or without, becomes the function that it is without one
(`effc.frontend.onnx.specialize`); every other graph stays what it is. Importing this file loads
neither onnx nor onnx_ir.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from effc.diagnostics import ModelError
from effc.ir.program import Program

MODEL = "model.onnx"
_CHECKPOINTS = ("*.safetensors", "pytorch_model*.bin")


class OnnxFrontend:
    """ONNX files, folders with a `model.onnx`, and models in memory."""

    name = "onnx"

    def accepts(self, source: Any) -> bool:
        """A path of an ONNX file, a folder with one and no checkpoint, or a model in memory."""
        if isinstance(source, str | Path):
            path = Path(source)
            if path.suffix == ".onnx":
                return path.is_file()
            checkpoint = any(found for p in _CHECKPOINTS for found in path.glob(p))
            return (path / MODEL).is_file() and not checkpoint
        kind = type(source)
        return (kind.__module__.split(".")[0], kind.__name__) in (
            ("onnx", "ModelProto"),
            ("onnx_ir", "Model"),
        )

    def load(
        self,
        source: Any,
        *,
        dtype: torch.dtype | None = None,
        decoder: bool | None = None,
        **_: Any,
    ) -> Program:
        """Import a model.

        Args:
            source: what `accepts` takes.
            dtype: must be None or the model's own.
            decoder: False keeps a graph of ids as it is; None makes a decoder of what looks like
                one.

        Raises:
            ModelError: E0301, E0302, E0306, E0307, E0310, E0311; E0304 for another dtype.
        """
        from effc.frontend.onnx import beside
        from effc.frontend.onnx.importer import import_model, source_text
        from effc.frontend.onnx.interface import Interface, decoder_interface
        from effc.frontend.onnx.reader import read_model
        from effc.frontend.onnx.specialize import specialize

        model = read_model(source)
        place = source_text(source)
        facts = beside.describe(source)
        found = decoder_interface(model.graph) if decoder is not False else "not asked for"
        if isinstance(found, Interface):
            program = specialize(model, found, place)
        else:
            program = import_model(model, place, beside.image_sizes(model.graph, source))
            if decoder is None and "input_ids" in {str(v.name) for v in model.graph.inputs}:
                program.notes.append(f"compiled as a function, not as a decoder: {found}")
        program.info = replace(program.info, **beside.known(facts))
        _refuse_conversion(program, dtype)
        return program


def _refuse_conversion(program: Program, dtype: torch.dtype | None) -> None:
    if dtype not in (None, program.info.dtype):
        raise ModelError(
            "E0304",
            f"target.dtype is {dtype}, the model's weights are {program.info.dtype}",
            where=program.info.source,
            help="export the model in that type, or leave target.dtype out",
        )
