"""What a plan should cost, said before anything is rewritten.

Everything follows from the canonical program, whose weights have not been read, and from the
closed forms of the methods: bytes of packed weights, bytes of pages, FLOPs and bytes per stage, and
the time that the machine's roofline allows. What is measured later is compared with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from effc.cost.forecast import Forecast
from effc.cost.machine import Machine, machine_of
from effc.cost.text import bytes_text
from effc.diagnostics import PolicyError
from effc.ir.program import Program
from effc.ir.sites import Site
from effc.spec.plan import Plan
from effc.spec.schema import Policy

CLOSED_FORMS = ("quantize", "store")
"""Aspects whose methods say exactly how many bytes they hold."""


def predict(
    program: Program,
    sites: Sequence[Site],
    plan: Plan,
    policy: Policy,
    machine: Machine | None = None,
    *,
    context: int | None = None,
    prompt: int | None = None,
) -> dict[str, Any]:
    """Bytes, FLOPs and time bounds of a plan, JSON-ready.

    Args:
        program: canonical and without a cache; no weight is read.
        sites: of the program.
        plan: which method acts where.
        policy: for batch and device.
        machine: what the time bounds are for; default: that of `target.device`, see `machine_of`.
        context: tokens in the cache; default: the program's context.
        prompt: tokens of the prefill; default: 512, or the context if that is less.

    Returns:
        machine, sizes, bytes, stages, sites, `largest` (the biggest contributors to the peak) and
        `notes` (what was counted by assumption). Bytes of an attention site are those of its pages
        at `context`. Seconds are a lower bound for a program whose operators are not fused and a
        processor whose caches hold nothing from one operator to the next.
    """
    forecast = Forecast.of(program, plan, policy, context, prompt)
    stages, notes = forecast.stages()
    peak = forecast.peak()
    prediction = {
        "sizes": forecast.sizes,
        "bytes": forecast.bytes(peak),
        "stages": stages,
        "sites": [forecast.site(site) for site in sites],
        "largest": forecast.largest(sites, peak),
        "notes": notes + _without_closed_form(plan),
    }
    return on_machine(prediction, machine or machine_of(policy.target.device))


def on_machine(prediction: Mapping[str, Any], machine: Machine) -> dict[str, Any]:
    """The same prediction with the time bounds of another machine."""
    stages = [_under_roof(stage, machine) for stage in prediction["stages"]]
    return {**prediction, "machine": asdict(machine), "stages": stages}


def check_memory(prediction: Mapping[str, Any], policy: Policy) -> None:
    """Refuse a plan whose predicted peak exceeds `target.memory`.

    Raises:
        PolicyError: E0411 with the parts of the peak and what takes most of it.
    """
    if policy.target.memory is None:
        return
    limit, count = int(policy.target.memory.evaluate()), prediction["bytes"]
    if count["peak"] <= limit:
        return
    sizes = prediction["sizes"]
    cache = count["cache_at_context"] + count["cache_metadata"]
    parts = {"weights": count["weights_after"], "cache": cache, "activations": count["activations"]}
    listed = ", ".join(f"{name} {bytes_text(size)}" for name, size in parts.items() if size)
    largest = ", ".join(f"{p['what']} {bytes_text(p['bytes'])}" for p in prediction["largest"][:3])
    raise PolicyError(
        "E0411",
        f"the model needs {bytes_text(count['peak'])} with {sizes['context']} tokens of context "
        f"and batch {sizes['batch']}, target.memory allows {bytes_text(limit)}: {listed}; the "
        f"largest parts: {largest}",
        where=policy.target.memory_span,
        help=_remedy(limit, parts, sizes),
    )


def _remedy(limit: int, parts: Mapping[str, int], sizes: Mapping[str, int]) -> str:
    """What would help most."""
    fewer = "" if sizes["batch"] == 1 else ", or lower target.batch"
    rest = limit - parts["weights"] - parts["activations"]
    if rest <= 0:
        return (
            "weights and activations alone take more: store weights in fewer bits "
            f"([[quantize]]){fewer}"
        )
    fitting = sizes["context"] * rest // parts["cache"]
    return (
        f"about {fitting} tokens fit (target.context); or store the cache in fewer bits "
        f'([[kv]] store = {{ method = "int8" }}) or the weights ([[quantize]]){fewer}'
    )


def compare_with_measured(
    prediction: Mapping[str, Any], measured: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Predicted figures beside measured ones.

    Args:
        prediction: what `predict` returned.
        measured: figures by name: keys of `prediction["bytes"]`, or "<stage>_seconds".

    Returns:
        One entry per measured figure that was predicted: what, predicted, measured, and error,
        which is predicted / measured - 1 (None when nothing was measured).
    """
    known = dict(prediction["bytes"])
    known |= {f"{stage['name']}_seconds": stage["seconds"] for stage in prediction["stages"]}
    return [
        {
            "what": what,
            "predicted": known[what],
            "measured": value,
            "error": known[what] / value - 1 if value else None,
        }
        for what, value in measured.items()
        if what in known
    ]


def _under_roof(stage: Mapping[str, Any], machine: Machine) -> dict[str, Any]:
    """A stage with its place under the roofline of a machine."""
    moved = sum(stage["bytes"].values())
    intensity = stage["flops"] / moved if moved else 0.0
    return {
        **stage,
        "intensity": intensity,
        "ridge": machine.ridge,
        "regime": "compute" if intensity > machine.ridge else "memory",
        "seconds": max(stage["flops"] / machine.peak_flops, moved / machine.bandwidth),
    }


def _without_closed_form(plan: Plan) -> list[str]:
    """Methods that change what is held in a way that only a run can tell."""
    methods = {(s.aspect, s.method) for s in plan.steps if s.aspect not in CLOSED_FORMS}
    return [
        f"{aspect} method {name} has no closed form: everything is counted as staying"
        for aspect, name in sorted(methods)
    ]
