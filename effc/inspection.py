"""What a policy can name in a model, and what effc can do with it."""

from __future__ import annotations

from typing import Any

from effc.canonical import canonical_program, find_frontend
from effc.diagnostics import EffcError, PassError
from effc.ir.passbase import read_bytes
from effc.ir.program import Program
from effc.ir.sites import find_sites
from effc.passes import registry
from effc.passes.caching.insert_cache import InsertCache
from effc.spec.parse import load_policy


def inspect_model(source: Any, spec: Any = None) -> dict[str, Any]:
    """Sites, sizes and masks of a model as JSON-ready data; weights are not read.

    An ONNX file also gets what stands in it, and a verdict: it may hold what cannot be compiled,
    and then says what that is instead of sites.
    """
    if find_frontend(source).name == "onnx":
        return _inspect_onnx(source, spec)
    return _program_facts(_canonical(source, spec))


def _canonical(source: Any, spec: Any) -> Program:
    return canonical_program(source, load_policy(spec, registry.method_infos()))[0]


def _program_facts(program: Program) -> dict[str, Any]:
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
                "stage": site.stage,
                "modality": site.modality,
                "layer": site.layer,
                "shape": list(site.shape),
                "params": site.params,
                "heads": site.heads,
                "kv_heads": site.kv_heads,
                "width": site.width,
                "mask": site.mask,
                "weight": site.weight,
                "bits": site.bits,
            }
            for site in find_sites(program)
        ],
    }


def _inspect_onnx(source: Any, spec: Any) -> dict[str, Any]:
    """Facts of the file, then those of the program, or what stands against making one.

    Raises:
        ModelError: the file cannot be read at all.
    """
    from effc.frontend.onnx.reader import read_model
    from effc.frontend.onnx.summary import summarize, unsupported

    model = read_model(source)
    file = summarize(model)
    missing = unsupported(file)
    if missing:
        noun = "operator is" if len(missing) == 1 else "operators are"
        message = f"{len(missing)} {noun} not supported: {', '.join(missing)}"
        return {"verdict": f"cannot be compiled: {message}", "file": file, "sites": []}
    try:
        program = _canonical(source, spec)
        verdict = _verdict(program)
        return {"verdict": verdict, **_program_facts(program), "file": file}
    except EffcError as error:
        place = f" ({error.where})" if error.where and str(error.where) != str(source) else ""
        refusal = f"cannot be compiled: {error.message}{place}"
        return {"verdict": refusal, "error": error.to_dict(), "file": file, "sites": []}


def _verdict(program: Program) -> str:
    """What compiling makes of a program."""
    stage = program.stages.get("forward")
    if stage is None or stage.token_input is None:
        return "compiles as a function"
    try:
        InsertCache().requires(program)
    except PassError as error:
        return f"cannot be compiled: {error.message}"
    return "compiles as a decoder with a cache"
