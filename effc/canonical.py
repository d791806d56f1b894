"""From a source to a program in canonical form, whatever the source was.

source --frontend--> Program --canonical passes--> Program in which rules find their sites
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

import effc.ops  # noqa: F401
from effc.diagnostics import ModelError, nearest
from effc.ir.journal import Journal
from effc.ir.manager import Verdict
from effc.ir.opset import is_allowed
from effc.ir.program import Program
from effc.passes import registry
from effc.pipeline import run_passes
from effc.progress import SILENT, Progress
from effc.settings import settings
from effc.spec.schema import Policy
from effc.trace import rewrite_observers

if TYPE_CHECKING:
    from effc.frontend.base import Frontend

DEFAULT_CONTEXT = 4096


def canonical_program(
    source: Any,
    policy: Policy,
    *,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    progress: Progress = SILENT,
) -> tuple[Program, Journal, list[Verdict]]:
    """Capture a model and bring it into canonical form.

    Raises:
        ModelError: E0307 lists the operators that no program may contain.
    """
    dtype = getattr(torch, policy.target.dtype) if policy.target.dtype else None
    frontend = find_frontend(source)
    options = {"example_inputs": example_inputs, "dynamic_shapes": dynamic_shapes}
    program = frontend.load(source, dtype=dtype, **options)
    journal, verdicts = _canonicalize(program, policy, progress)
    if frontend.name == "onnx" and _sees_ahead(program):
        # It looked like a decoder, and its attention reads tokens to come: an encoder.
        program = frontend.load(source, dtype=dtype, decoder=False)
        journal, verdicts = _canonicalize(program, policy, progress)
    return program, journal, verdicts


def _canonicalize(
    program: Program, policy: Policy, progress: Progress
) -> tuple[Journal, list[Verdict]]:
    _refuse_foreign_operators(program)
    _refuse_unknown_types(program)
    program.device = policy.target.device.partition(":")[0]
    program.threads = policy.target.threads
    _settle_context(program, policy)
    journal = Journal(observers=rewrite_observers(settings()))
    passes = [registry.locate(location)() for location in registry.CANONICAL]
    return journal, run_passes(passes, program, journal, progress)


def _sees_ahead(program: Program) -> bool:
    """Whether a graph of ids and positions attends to every token, as encoders do."""
    calls = [n for _, n in program.nodes() if str(n.target) == "effc.attention.default"]
    whole = [n for n in calls if n.args[3] is None and not n.args[4]]
    return _is_decoder(program) and bool(whole)


def find_frontend(source: Any) -> Frontend:
    """The frontend for a source.

    Raises:
        ModelError: E0301 if there is none, saying what was found.
    """
    from effc.frontend.huggingface.frontend import HuggingFaceFrontend
    from effc.frontend.onnx.frontend import OnnxFrontend
    from effc.frontend.torch.frontend import TorchFrontend

    for frontend in (OnnxFrontend(), HuggingFaceFrontend(), TorchFrontend()):
        if frontend.accepts(source):
            return frontend
    if isinstance(source, str | Path):
        path = Path(source)
        what = "is neither a model folder nor an .onnx file" if path.is_file() else "does not exist"
        raise ModelError("E0301", f"the model {what}", where=str(path), help=_nearby(path))
    raise ModelError(
        "E0301",
        f"a model is a folder, an .onnx file or an nn.Module, found {type(source).__name__}",
        help="give the path of a Hugging Face folder or of an .onnx file, or the module itself",
    )


def _nearby(path: Path) -> str:
    """What the user may have meant."""
    folders = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
    near = nearest(path.name, folders)
    help = "give a Hugging Face folder: config.json, weights and tokenizer"
    return f"did you mean '{near}'? {help}" if near else help


def _refuse_foreign_operators(program: Program) -> None:
    """The verifier would blame a pass for what came with the model."""
    foreign = {
        str(node.target): node.meta.get("path") or "the model itself"
        for _, node in program.nodes()
        if node.op == "call_function" and not is_allowed(node.target)
    }
    if foreign:
        listed = ", ".join(f"{op} (in {path})" for op, path in foreign.items())
        raise ModelError(
            "E0307",
            f"{len(foreign)} operators of the model are not supported: {listed}",
            where=program.info.source,
            help="programs are functional and draw no random numbers; "
            "express that part with other operators",
        )


def _refuse_unknown_types(program: Program) -> None:
    """Rewriting needs shapes; where they depend on values, a graph can be run but not compiled."""
    for stage in program.stages.values():
        if not any(isinstance(node.meta.get("val"), torch.Tensor) for node in stage.graph.nodes):
            names = ", ".join(spec.name for spec in stage.inputs) or "its values"
            raise ModelError(
                "E0306",
                f"the model does not say the number of dimensions of {names}",
                where=program.info.source,
                help="export the model with shapes for its inputs; "
                "effc.import_onnx runs it as it is, without compiling it",
            )
    unknown = [n for _, n in program.nodes() if n.op == "call_function" and _is_untyped(n)]
    if unknown:
        first = unknown[0]
        raise ModelError(
            "E0306",
            f"the shapes of {len(unknown)} values depend on what the inputs hold, the first is "
            f"that of {first.name} ({first.target})",
            where=str(first.meta.get("path") or program.info.source),
            help="export the model with these shapes fixed; "
            "effc.import_onnx runs it as it is, without compiling it",
        )


def _is_untyped(node: fx.Node) -> bool:
    return node.meta.get("val") is None


def _settle_context(program: Program, policy: Policy) -> None:
    context = policy.target.context or program.info.context
    if context is None and _is_decoder(program):
        context = DEFAULT_CONTEXT
        program.notes.append(
            f"the model does not say how long its context is; assuming {context} tokens "
            "(set target.context)"
        )
    known = program.info.context
    if known is not None and policy.target.context is not None and policy.target.context > known:
        program.notes.append(
            f"target.context = {policy.target.context} exceeds the model's {known} tokens; "
            f"using {known}"
        )
        context = known
    program.info = replace(program.info, context=context)


def _is_decoder(program: Program) -> bool:
    stages = program.stages.values()
    return any(s.outputs == ("logits",) and s.inputs[0].name in ("ids", "embeds") for s in stages)
