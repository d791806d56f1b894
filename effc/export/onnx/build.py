"""From a stage to an ONNX model in memory."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.passes import common
from onnxscript import optimizer
from torch import fx
from torch.export import ExportedProgram

from effc.diagnostics import ExportError
from effc.export import dense
from effc.export.decompositions import decompositions
from effc.export.onnx import fusion, naming, operators
from effc.export.onnx.decoder import decoder, obstacle_to_grouped
from effc.export.onnx.lowering import TRANSLATIONS, Graph, lower
from effc.export.onnx.placeholders import placeholder
from effc.export.torch_program import (
    example_inputs,
    export_module,
    size_names,
    with_named_results,
)
from effc.ir.program import InputSpec, Program, Stage

# What torch's translations are written for; newer versions are converted to.
TORCH_OPSET = 18


def build(program: Program, stage: Stage, dialect: str, opset: int) -> Graph:
    """The ONNX model of one stage; its weights are loaded now and shared with it.

    Raises:
        ExportError: E0801, with the reason.
    """
    if program.loop == "autoregressive" and stage.name == dense.STAGE:
        return _decoder(program, dialect, opset)
    specs = tuple(spec for spec in stage.inputs if not spec.optional)
    module = with_named_results(program, stage)
    given = dict.fromkeys(spec.name for spec in stage.inputs) | example_inputs(specs)
    sizes = dict.fromkeys(given) | size_names(specs)
    assert isinstance(module, fx.GraphModule)
    _decompose(module)
    exported = export_module(module, given, sizes, program.info.source)
    results = [f"output_{name}" if name.isdigit() else name for name in stage.outputs]
    # An input called like a word of Python has an underscore in the program.
    inputs = [spec.name.removesuffix("_") for spec in specs]
    model = _translated(exported, inputs, results, program.info.source)
    g = Graph(model, opset, contrib=dialect == "ort", grouped=False)
    _finish(g)
    return g


def _decoder(program: Program, dialect: str, opset: int) -> Graph:
    reason = obstacle_to_grouped(program) if dialect == "ort" else None
    made = decoder(program)
    specs: tuple[InputSpec, ...] = tuple(port.spec for port in made.inputs)
    _decompose(made.module)
    exported = export_module(
        made.module, example_inputs(specs), size_names(specs), program.info.source
    )
    inputs = [port.name for port in made.inputs]
    grouped = dialect == "ort" and reason is None
    model = _translated(exported, inputs, list(made.outputs), program.info.source)
    g = Graph(model, opset, contrib=dialect == "ort", grouped=grouped)
    attention = fusion.placeholders(g, "attend_past")[0]
    g.heads = int(g.shape(attention.inputs[0])[1])  # type: ignore[arg-type]
    if reason is not None:
        g.note(f"attention is made of standard operators: {reason}")
    if grouped:
        fusion.give_rotations(g)
        fusion.pack_projections(g)
    _finish(g)
    naming.name_sizes(g.model, made.inputs)
    return g


def _decompose(module: fx.GraphModule) -> None:
    """Operators without a translation of their own are traced through their decomposition."""
    table = decompositions()
    for node in module.graph.nodes:
        if node.target in table and str(node.target).split(".")[1] not in TRANSLATIONS:
            node.target = table[node.target]
    module.recompile()


def _translated(
    exported: ExportedProgram, inputs: list[str], outputs: list[str], source: str
) -> ir.Model:
    """The model with nodes of our domain in the places of our operators."""
    ours: dict[Any, str] = {torch.ops.aten.linear.default: "linear"}
    for name in TRANSLATIONS:
        for namespace in (torch.ops.effc, getattr(torch.ops, operators.NAMESPACE)):
            if hasattr(namespace, name):
                ours[getattr(namespace, name).default] = name
    table = {op: placeholder(op, name) for op, name in ours.items()}
    try:
        with _quiet():
            made = torch.onnx.export(
                exported, dynamo=True, custom_translation_table=table, optimize=False,
                opset_version=TORCH_OPSET, input_names=inputs, output_names=outputs, verbose=False,
            )  # fmt: skip
            assert made is not None
            return optimizer.optimize(made.model)
    except Exception as error:  # torch.onnx raises whatever its translations raise
        raise _impossible(error, source) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch.onnx says about itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _impossible(error: Exception, source: str) -> ExportError:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    first = " ".join(str(cause).strip().split("\n", 1)[0].split())
    return ExportError(
        "E0801",
        f"torch.onnx cannot translate this program ({type(cause).__name__}: {first})"[:400],
        where=source,
        help="use the artifact itself with effc.load()",
    )


def _finish(g: Graph) -> None:
    """From our operators to those of onnxruntime, and clean up."""
    g.model.graph.opset_imports[""] = g.opset
    lower(g)
    if g.grouped:
        fusion.join_heads(g)
    if g.contrib:
        common.CommonSubexpressionEliminationPass()(g.model)
        fusion.skip_norms(g)
        g.model.graph.opset_imports["com.microsoft"] = 1
    common.CommonSubexpressionEliminationPass()(g.model)
    common.RemoveUnusedNodesPass()(g.model)
    common.TopologicalSortPass()(g.model)
    naming.tidy(g.model)
