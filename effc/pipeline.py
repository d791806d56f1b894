"""Which passes run for a policy and a plan, in which order, and who watches them.

Program --transforming passes--> --lowering passes--> Program'
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from effc.diagnostics import EffcError, PassError
from effc.ir.journal import Journal
from effc.ir.manager import PassManager, Verdict, verdict_of
from effc.ir.passbase import Pass, PassResult
from effc.ir.printer import print_program
from effc.ir.program import Program
from effc.kernels.paged.formats import plain_format
from effc.passes import registry
from effc.passes.caching.insert_cache import InsertCache
from effc.passes.lowering.bufferize import Bufferize
from effc.passes.lowering.select_kernels import SelectKernels
from effc.passes.quantization.quantize_weights import KINDS, QuantizeWeights
from effc.progress import SILENT, Progress
from effc.runtime.encoding import is_encoder
from effc.settings import settings
from effc.spec.plan import Plan, SiteKey
from effc.spec.schema import Policy

log = logging.getLogger(__name__)

SERVED: dict[str, tuple[str, ...]] = {
    "quantize": KINDS,
    "kv": ("attention",),
    "store": ("attention",),
    "tokens": (),
}
"""Which kinds of sites the methods of each aspect can act on."""

ASPECT_PASSES = {
    "quantize": QuantizeWeights.name,
    "kv": InsertCache.name,
    "store": InsertCache.name,
}
"""The pass that carries out the steps of an aspect."""


def rewrite(
    program: Program, policy: Policy, plan: Plan, journal: Journal, progress: Progress = SILENT
) -> list[Verdict]:
    """Transform and lower a canonical program in place; one verdict per pass."""
    passes = [*transforming_passes(program, policy, plan), *lowering_passes(policy)]
    verdicts = run_passes(passes, program, journal, progress)
    _drop_unread(program)
    return verdicts


def run_passes(
    passes: Sequence[Pass], program: Program, journal: Journal, progress: Progress = SILENT
) -> list[Verdict]:
    """Run passes as the settings say: verified, printed, dumped, stopped."""

    def observe(p: Pass, program: Program, result: PassResult) -> None:
        _observe(p, program, result)
        progress.verdict(verdict_of(p, result))

    chosen = settings()
    manager = PassManager(passes, observe, chosen.verify, chosen.stop_after)
    return manager.run(program, journal)


def transforming_passes(program: Program, policy: Policy, plan: Plan) -> list[Pass]:
    """The passes that the policy asks for, and the cache."""
    passes: list[Pass] = []
    if weights := _methods(plan, "quantize"):
        # Integer kernels want int8 inputs; on a GPU 16-bit inputs meet dequantized weights.
        activations = "int8" if program.device == "cpu" else "source"
        passes.append(QuantizeWeights(weights, activations))
    if cache := _cache_pass(program, plan):
        passes.append(cache)
    return passes


def lowering_passes(policy: Policy) -> list[Pass]:
    """From operators to what runs on the target."""
    device = policy.target.device.partition(":")[0]
    return [Bufferize(), SelectKernels(device, policy.target.allow_reference)]


def _methods(plan: Plan, aspect: str) -> dict[SiteKey, Any]:
    """Site -> the method that the plan chose for one of its aspects."""
    return {
        (step.site.stage, step.site.node): registry.method(aspect, step.method)(**step.options)
        for step in plan.of(aspect)
    }


def _cache_pass(program: Program, plan: Plan) -> InsertCache | None:
    """The cache of a decoder; encoders need none, and other modules keep their forward, noted."""
    stores = _methods(plan, "store")
    if not stores and (is_encoder(program) or _is_function(program)):
        return None
    cache = InsertCache(plain_format(program.info.dtype), stores=stores)
    try:
        cache.requires(program)
    except PassError as error:
        if program.info.family != "module" or stores:
            raise
        program.notes.append(f"this model can be called but cannot generate: {error.message}")
        return None
    return cache


def _is_function(program: Program) -> bool:
    """Whether the program came from a file that holds no decoder, such as a vision tower."""
    return program.info.family != "module" and program.stages["forward"].token_input is None


def _drop_unread(program: Program) -> None:
    read = program.read_weights()
    for name in [name for name in program.weights if name not in read]:
        program.weights.remove(name)


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
            f"the program cannot be dumped: {error.strerror or error}",
            where=str(folder),
            help="set EFFC_DUMP to a folder that can be written",
        ) from error
