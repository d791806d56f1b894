"""The compiler: source and policy in, lowered program out.

source --frontend--> Program --canonical passes--> sites --policy--> plan
       --transforming passes--> --lowering passes--> Compilation
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import effc.ops  # noqa: F401
from effc.compilation import Compilation
from effc.diagnostics import EffcError, ModelError, PassError
from effc.ir.journal import Journal
from effc.ir.manager import PassManager, Verdict
from effc.ir.opset import is_allowed
from effc.ir.passbase import Pass, PassResult, read_bytes
from effc.ir.printer import print_program
from effc.ir.program import Program
from effc.ir.sites import find_sites
from effc.passes import registry
from effc.passes.caching.insert_cache import InsertCache
from effc.passes.lowering.bufferize import Bufferize
from effc.passes.lowering.select_kernels import SelectKernels
from effc.passes.quantization.quantize_weights import KINDS, QuantizeWeights
from effc.report import build_lock, build_report, untied_notes
from effc.settings import settings
from effc.spec.parse import load_policy
from effc.spec.plan import Plan, make_plan
from effc.spec.schema import Policy

if TYPE_CHECKING:
    from effc.frontend.base import Frontend

log = logging.getLogger(__name__)

Progress = Callable[[str], None]

DEFAULT_CONTEXT = 4096


def compile_model(
    source: Any,
    spec: Any = None,
    *,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    progress: Progress | None = None,
) -> Compilation:
    """Compile a model under a policy.

    Args:
        source: path of a Hugging Face folder, or an `nn.Module`.
        spec: path of a policy, dict, `Policy`, or None for an empty policy.
        example_inputs: for modules that are no transformers language model: a tuple or a dict.
        dynamic_shapes: overrides the default reading of the example's dimensions.
        progress: called with a line before each long step.

    Raises:
        EffcError: every refusal; see `effc.diagnostics.CATALOGUE`.
    """
    say = progress or (lambda line: log.info("%s", line))
    policy = load_policy(spec, registry.method_infos())
    say("capturing the model")
    program, journal, verdicts = canonical_program(
        source, policy, example_inputs=example_inputs, dynamic_shapes=dynamic_shapes
    )
    sites = find_sites(program)
    before = read_bytes(program)
    plan = make_plan(policy.quantize, sites, KINDS)
    say("rewriting")
    passes = [*transforming_passes(program, policy, plan), *lowering_passes(policy)]
    verdicts += _manager(passes).run(program, journal)
    _drop_unread(program)
    notes = [*program.notes, *plan.notes, *untied_notes(program), *_unmeasured(policy)]
    done = Compilation(program, policy, plan, verdicts, sites, notes, journal)
    done.report = build_report(done, before)
    done.lock = build_lock(done, source)
    return done


def canonical_program(
    source: Any, policy: Policy, *, example_inputs: Any = None, dynamic_shapes: Any = None
) -> tuple[Program, Journal, list[Verdict]]:
    """Capture a model and bring it into canonical form.

    Raises:
        ModelError: E0307 lists the operators that no program may contain.
    """
    dtype = getattr(torch, policy.target.dtype) if policy.target.dtype else None
    frontend = find_frontend(source)
    program = frontend.load(
        source, dtype=dtype, example_inputs=example_inputs, dynamic_shapes=dynamic_shapes
    )
    _refuse_foreign_operators(program)
    program.device = policy.target.device.partition(":")[0]
    program.threads = policy.target.threads
    _settle_context(program, policy)
    journal = Journal()
    passes = [registry.locate(location)() for location in registry.CANONICAL]
    return program, journal, _manager(passes).run(program, journal)


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


def find_frontend(source: Any) -> Frontend:
    """The frontend for a source.

    Raises:
        ModelError: E0301 if there is none, saying what was found.
    """
    from effc.frontend.huggingface.frontend import HuggingFaceFrontend
    from effc.frontend.torch.frontend import TorchFrontend

    for frontend in (HuggingFaceFrontend(), TorchFrontend()):
        if frontend.accepts(source):
            return frontend
    if isinstance(source, str | Path):
        path = Path(source)
        if path.suffix == ".onnx":
            raise ModelError(
                "E0302",
                "ONNX files cannot be compiled yet",
                where=str(path),
                help="compile the checkpoint the file was exported from",
            )
        what = "is a file, not a model folder" if path.is_file() else "does not exist"
        raise ModelError(
            "E0301", f"the model {what}", where=str(path), help="give a Hugging Face folder"
        )
    raise ModelError(
        "E0301",
        f"a model is a folder or an nn.Module, found {type(source).__name__}",
    )


def transforming_passes(program: Program, policy: Policy, plan: Plan) -> list[Pass]:
    """The passes that the policy asks for, and the cache."""
    passes: list[Pass] = []
    if plan.steps:
        choices = {
            (step.site.stage, step.site.node): registry.method(step.table, step.method)(
                **step.options
            )
            for step in plan.steps
        }
        # Integer kernels want int8 inputs; on a GPU 16-bit inputs meet dequantized weights.
        activations = "int8" if program.device == "cpu" else "source"
        passes.append(QuantizeWeights(choices, activations))
    if cache := _cache_pass(program):
        passes.append(cache)
    return passes


def _cache_pass(program: Program) -> InsertCache | None:
    """The cache of a decoder; a module that is none keeps its plain forward, with a note."""
    from effc.kernels.paged.formats import plain_format

    cache = InsertCache(plain_format(program.info.dtype))
    try:
        cache.requires(program)
    except PassError as error:
        if program.info.family != "module":
            raise
        program.notes.append(f"this model can be called but cannot generate: {error.message}")
        return None
    return cache


def lowering_passes(policy: Policy) -> list[Pass]:
    """From operators to what runs on the target."""
    device = policy.target.device.partition(":")[0]
    return [Bufferize(), SelectKernels(device, policy.target.allow_reference)]


def _manager(passes: Sequence[Pass]) -> PassManager:
    return PassManager(passes, observe=_observe, check=settings().verify)


def _observe(p: Pass, program: Program, result: PassResult) -> None:
    log.info("pass %s: %s places, %.2f s", p.name, len(result.outcomes), result.seconds)
    chosen = settings()
    if chosen.print in ("all", f"after:{p.name}"):
        sys.stderr.write(f"# after {p.name}\n{print_program(program)}\n")
    if chosen.dump:
        _dump(Path(chosen.dump), p.name, print_program(program))


def _dump(folder: Path, name: str, text: str) -> None:
    """Write one numbered program of `EFFC_DUMP`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("[0-9][0-9]-*.py")))
        (folder / f"{number:02}-{name}.py").write_text(text, encoding="utf-8")
    except OSError as error:
        raise EffcError(
            "E0103",
            f"the program cannot be dumped ({error})",
            where=str(folder),
            help="set EFFC_DUMP to a folder that can be written",
        ) from error


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
    return any(s.outputs == ("logits",) for s in program.stages.values())


def _drop_unread(program: Program) -> None:
    read = program.read_weights()
    for name in [name for name in program.weights if name not in read]:
        program.weights.remove(name)


def _unmeasured(policy: Policy) -> list[str]:
    """What the policy asks for and this version does not check."""
    notes = []
    if policy.target.memory is not None:
        notes.append("target.memory is not checked by this version")
    if policy.quality is None:
        notes.append("nothing was measured: the policy has no [quality]")
    else:
        notes.append("[quality] gates are not measured by this version: nothing was compared")
    return notes


def inspect_model(source: Any, spec: Any = None) -> dict[str, Any]:
    """What a policy can name in a model: sites, sizes, masks; weights are not read."""
    policy = load_policy(spec, registry.method_infos())
    program, _, _ = canonical_program(source, policy)
    sites = find_sites(program)
    return {
        "family": program.info.family,
        "source": program.info.source,
        "dtype": str(program.info.dtype).removeprefix("torch."),
        "context": program.info.context,
        "vocabulary": program.info.vocabulary,
        "parameters": sum(program.weights[n].numel for n in program.read_weights()),
        "bytes": read_bytes(program),
        "sites": [
            {
                "kind": site.kind,
                "name": site.name,
                "layer": site.layer,
                "shape": list(site.shape),
                "params": site.params,
                "heads": site.heads,
                "kv_heads": site.kv_heads,
                "width": site.width,
                "mask": site.mask,
                "weight": site.weight,
            }
            for site in sites
        ],
    }
