"""What a compilation says of itself: the report and the lock."""

from __future__ import annotations

import hashlib
import platform
import sys
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from effc.compilation import Compilation
from effc.ir.passbase import read_bytes
from effc.ir.pattern import op_name
from effc.ir.program import Program
from effc.spec.dump import dump_policy

_PACKAGES = ("effc", "torch", "transformers", "safetensors", "triton", "numpy")


def build_report(done: Compilation, bytes_before: int) -> dict[str, Any]:
    """The content of report.json."""
    after = read_bytes(done.program)
    return {
        "version": 1,
        "source": done.program.info.source,
        "family": done.program.info.family,
        "policy": done.policy.text,
        "bytes": {
            "weights_before": bytes_before,
            "weights_after": after,
            "ratio": round(bytes_before / after, 4) if after else None,
        },
        "plan": [
            {
                "table": step.table,
                "method": step.method,
                "options": dict(step.options),
                "site": step.site.name,
                "rule": step.rule,
            }
            for step in done.plan.steps
        ],
        "skipped": [{"site": name, "reason": reason} for name, reason in done.plan.skipped],
        "passes": [asdict(verdict) for verdict in done.verdicts],
        "near_misses": [asdict(miss) for miss in done.journal.misses],
        "kernels": kernel_counts(done.program),
        "cache": [asdict(site) for site in done.program.cache_sites],
        "quality": None,
        "notes": done.notes,
        "environment": environment(),
    }


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


def kernel_counts(program: Program) -> dict[str, dict[str, int]]:
    """Operator -> kernel -> number of calls."""
    counts: dict[str, dict[str, int]] = {}
    for _, node in program.nodes():
        if kernel := node.meta.get("kernel"):
            per_op = counts.setdefault(op_name(node).rpartition(".")[0], {})
            per_op[kernel] = per_op.get(kernel, 0) + 1
    return counts


def build_lock(done: Compilation, source: Any) -> dict[str, Any]:
    """The content of policy.lock: what it takes to do the same again."""
    return {
        "version": 1,
        "policy": dump_policy(done.policy),
        "inputs": input_hashes(source),
        "environment": environment(),
    }


def input_hashes(source: Any) -> dict[str, str]:
    """SHA-256 of the files that were compiled; empty for a model in memory."""
    if not isinstance(source, str | Path) or not Path(source).is_dir():
        return {}
    files = sorted(
        p for p in Path(source).iterdir() if p.suffix in (".json", ".safetensors", ".bin")
    )
    return {path.name: _sha256(path) for path in files if path.is_file()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def environment() -> dict[str, Any]:
    """Versions and machine, without anything that identifies a person or a place."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "python": sys.version.split()[0],
        "machine": platform.machine(),
        "system": platform.system(),
        "packages": versions,
    }
