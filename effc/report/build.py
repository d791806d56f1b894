"""The content of `report.json`: what was done, what it saved, what it cost.

Figures stand as they were measured or predicted, in bytes, seconds and nats; rounding is left to
those who show them. What was not measured is null.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from effc.compilation import Compilation
from effc.cost.prediction import compare_with_measured
from effc.ir.facts import kernel_counts
from effc.ir.opset import name_of
from effc.ir.passbase import read_bytes
from effc.ir.program import Program, Stage
from effc.kernels.paged.formats import page_format
from effc.kernels.registry import REFERENCE, candidates
from effc.lock import environment
from effc.passes.lowering.select_kernels import SelectKernels
from effc.runtime.kv_store import PagedStore
from effc.runtime.session import prefill_chunk
from effc.spec.plan import Plan, Step

VERSION = 2


def build_report(done: Compilation) -> dict[str, Any]:
    """The content of report.json, version 2, ready for JSON."""
    program, target, held = done.program, done.policy.target, _bytes(done)
    report = {
        "version": VERSION,
        "source": program.info.source,
        "family": program.info.family,
        "policy": done.policy.text,
        "target": {
            "device": target.device,
            "context": program.info.context,
            "batch": target.batch,
        },
        "bytes": held,
        "plan": _plan(done.plan),
        "skipped": [{"site": name, "reason": reason} for name, reason in done.plan.skipped],
        "passes": done.verdicts,
        "near_misses": done.journal.misses,
        "kernels": kernels(program),
        "cache": program.cache_sites,
        "sites": done.prediction.get("sites", []),
        "prediction": done.prediction,
        "prediction_error": _prediction_error(done, held),
        "quality": done.quality,
        "reverted": done.reverted,
        "notes": done.notes,
        "environment": environment(),
    }
    return plain(report)


def _bytes(done: Compilation) -> dict[str, Any]:
    """Bytes of weights and cache, as the compiled program and its runtime hold them."""
    before, after = done.bytes_before, read_bytes(done.program)
    return {
        "weights_before": before,
        "weights_after": after,
        "ratio": before / after if after else None,
        "cache_per_token": _cache_per_token(done.program),
        "cache_at_context": _cache_at_context(done.program, done.policy.target.batch),
    }


def _cache_per_token(program: Program) -> int | None:
    """Bytes of the keys and values of one token, over all sites; None without a cache."""
    planes = (
        site.kv_heads * page_format(name).bytes_per_token(width)
        for site in program.cache_sites
        for name, width in (
            (site.key_format, site.key_width),
            (site.value_format, site.value_width),
        )
    )
    return sum(planes) if program.cache_sites else None


def _cache_at_context(program: Program, batch: int) -> int | None:
    """Bytes of the pools for `batch` full contexts; the store sizes them, without memory."""
    if not program.cache_sites or program.info.context is None:
        return None
    capacity = program.info.context
    step = min(capacity, prefill_chunk(program))
    store = PagedStore(program, batch, capacity=capacity, step=step, device="meta")
    return store.bytes()["device"]


def _prediction_error(done: Compilation, held: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Predicted bytes and times beside those of the compiled program."""
    if not done.prediction:
        return []
    names = ("weights_after", "cache_per_token", "cache_at_context")
    measured = {name: held[name] for name in names if held[name] is not None}
    errors = compare_with_measured(done.prediction, measured)
    timed = (done.quality or {}).get("time")
    if not timed or done.timed_prediction is None:
        return errors
    seconds = {f"{stage}_seconds": found["rewritten_s"] for stage, found in timed.items()}
    return errors + compare_with_measured(done.timed_prediction, seconds)


def _plan(plan: Plan) -> dict[str, Any]:
    return {
        "steps": [_step(step) for step in plan.steps],
        "rules": plan.matches,
        "notes": plan.notes,
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "aspect": step.aspect,
        "method": step.method,
        "options": step.options,
        "site": step.site.name,
        "table": step.table,
        "rule": step.rule,
    }


def kernels(program: Program) -> list[dict[str, Any]]:
    """One entry per stage, operator and kernel: the calls, and what spoke against other kernels."""
    return [
        {
            "stage": stage.name,
            "operator": operator,
            "kernel": kernel,
            "calls": calls,
            "reasons": _reasons(stage, operator, kernel, program.device),
        }
        for stage in program.stages.values()
        for operator, counts in kernel_counts(stage).items()
        for kernel, calls in counts.items()
    ]


def _reasons(stage: Stage, operator: str, kernel: str, device: str) -> list[str]:
    """Why these calls got this kernel: selection is a pure function, so it is asked again."""
    if not operator.startswith("effc."):
        return []
    if kernel == REFERENCE and not candidates(operator.split(".")[1], device):
        return [f"no other kernel is registered for {device}"]
    select = SelectKernels(device, allow_reference=True)
    asked = (
        select.choose(node)[1]
        for node in stage.graph.nodes
        if node.meta.get("kernel") == kernel and name_of(node.target) == operator
    )
    return [reason for reason in dict.fromkeys(asked) if reason]


def untied_notes(program: Program) -> list[str]:
    """What it costs that users of a shared weight are treated differently.

    Packed copies of a weight are called `<weight>.codes`, `<weight>~1.codes` and so on, with
    their other planes beside them (`effc.passes.quantization.quantize_weights`).
    """
    copies: dict[str, dict[str, int]] = {}
    for name, weight in program.weights.items():
        stem, dot, plane = name.rpartition(".")
        packed = bool(dot) and plane in ("codes", "scale", "zero")
        kept = stem if packed else name
        per_copy = copies.setdefault(kept.partition("~")[0], {})
        per_copy[kept if packed else "full"] = per_copy.get(kept, 0) + weight.nbytes
    return [
        f"weight {name!r} is stored {len(sizes)} times: "
        + " + ".join(f"{size} bytes" for size in sizes.values())
        for name, sizes in copies.items()
        if len(sizes) > 1
    ]


def plain(value: Any) -> Any:
    """Data as JSON has it: dataclasses become objects, numbers that JSON lacks become texts.

    An infinite perplexity is a measurement; null would say that there was none.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: plain(getattr(value, field.name)) for field in fields}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
