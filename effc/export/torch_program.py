"""From stages to `torch.export`, the common road of all exporters.

A stage "decode" takes a dense cache (`effc.export.dense`), every other stage its own inputs. All
sizes that vary in the program vary in the export.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from effc.diagnostics import ExportError
from effc.export import dense
from effc.export.stage_module import stage_module
from effc.ir.program import InputSpec, Program, Stage

# Input -> dimension -> the name of its size; nested for a dictionary of inputs.
Sizes = Any
Bounds = Mapping[str, tuple[int, int | None]]

_BOUND = re.compile(r"^\s*(\w+) = Dim\('\w+'(?:, min=(\d+))?(?:, max=(\d+))?\)", re.MULTILINE)


@dataclass(frozen=True)
class TorchExport:
    """One exported stage.

    Attributes:
        stage: its name.
        program: what `torch.export` made of it.
        inputs: its inputs, those of a dense cache included.
        outputs: names of its results.
    """

    stage: str
    program: ExportedProgram
    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]


def export_stage(program: Program, stage: Stage) -> TorchExport:
    """Export one stage; its weights are loaded now.

    Raises:
        ExportError: E0801, with the reason.
    """
    if program.loop == "autoregressive" and stage.name == dense.STAGE:
        return _export_decode(program, stage)
    inputs = tuple(spec for spec in stage.inputs if not spec.optional)
    example = example_inputs(inputs)
    given = {**dict.fromkeys(spec.name for spec in stage.inputs), **example}
    sizes = {**dict.fromkeys(given), **size_names(inputs)}
    exported = export_module(with_named_results(program, stage), given, sizes, program.info.source)
    return TorchExport(stage.name, exported, inputs, stage.outputs)


def _export_decode(program: Program, stage: Stage) -> TorchExport:
    arguments = {spec.name: spec for spec in stage.inputs}
    planes = tuple(dense.plane_specs(program).values())
    plain = tuple(
        InputSpec("input_ids" if name == "ids" else name, spec.dtype, spec.shape, spec.role)
        for name, spec in arguments.items()
        if name in (*dense.ARGUMENTS, "lengths") and not spec.optional
    )
    example = example_inputs(plain) | {"past": example_inputs(planes)}
    sizes = size_names(plain) | {"past": size_names(planes)}
    exported = export_module(dense.dense_decoder(program), example, sizes, program.info.source)
    outputs = ("logits", "lengths", *(spec.name for spec in planes))
    return TorchExport(stage.name, exported, (*plain, *planes), outputs)


def with_named_results(program: Program, stage: Stage) -> nn.Module:
    """The module of a stage that returns what the compiled model returns: a tensor, a tuple, or
    a dictionary of named results."""
    module = stage_module(program, stage)
    output = module.graph.output_node()
    results: dict[str, Any] = dict(zip(stage.outputs, output.args[0], strict=True))  # type: ignore[arg-type]
    if stage.outputs == ("output",):
        output.args = (results["output"],)
    elif not all(name.isdigit() for name in results):
        output.args = (results,)  # type: ignore[assignment]
    module.recompile()
    return module


def example_inputs(inputs: tuple[InputSpec, ...]) -> dict[str, torch.Tensor]:
    """Zeros of distinct sizes above one, so that none are taken for equal or constant."""
    names = dict.fromkeys(s for spec in inputs for s in spec.shape if isinstance(s, str))
    sizes = {name: 3 + 2 * i for i, name in enumerate(names)}
    return {
        spec.name: torch.zeros([sizes.get(s, s) for s in spec.shape], dtype=spec.dtype)  # type: ignore[arg-type,misc]
        for spec in inputs
    }


def size_names(inputs: tuple[InputSpec, ...]) -> Sizes:
    return {
        spec.name: {d: s for d, s in enumerate(spec.shape) if isinstance(s, str)} for spec in inputs
    }


def export_module(
    module: nn.Module, example: Mapping[str, Any], sizes: Sizes, source: str
) -> ExportedProgram:
    try:
        return _run_export(module, example, _dims(sizes, {}))
    except Exception as error:  # torch.export raises whatever the operators raise
        bounds = _bounds(str(error))
        if not bounds:
            raise _impossible(error, source) from error
    try:
        return _run_export(module, example, _dims(sizes, bounds))
    except Exception as error:
        raise _impossible(error, source) from error


def _bounds(message: str) -> Bounds:
    """The ranges that torch.export says the graph holds for, e.g. the length of a table of
    positions. An artifact does not record them."""
    return {
        name: (max(1, int(low or 1)), int(high) if high else None)
        for name, low, high in _BOUND.findall(message)
    }


def _dims(sizes: Sizes, bounds: Bounds) -> Any:
    """Names of sizes -> what `torch.export` calls a dimension."""
    if isinstance(sizes, str):
        low, high = bounds.get(sizes, (1, None))
        return Dim(sizes, min=low, max=high)
    return None if sizes is None else {k: _dims(inner, bounds) for k, inner in sizes.items()}


def _run_export(module: nn.Module, example: Mapping[str, Any], shapes: Any) -> ExportedProgram:
    with torch.no_grad(), warnings.catch_warnings():
        # PyTorch warns about its own use of what it deprecates.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.export.export(module, (), dict(example), dynamic_shapes=shapes, strict=False)


def _impossible(error: Exception, source: str) -> ExportError:
    first = " ".join(str(error).strip().split("\n", 1)[0].split())
    return ExportError(
        "E0801",
        f"torch.export cannot take this program ({type(error).__name__}: {first})"[:400],
        where=source,
        help="use the artifact itself with effc.load()",
    )
