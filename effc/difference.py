"""Two artifacts compared: what was asked, with what it was made, what came out.

    compare(Path("a"), Path("b"))["equal"]

Manifests, stage files and reports are read and checked; weights are compared by their digests and
never loaded.
"""

from __future__ import annotations

import difflib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effc.diagnostics import ArtifactError
from effc.ir import literals, untrusted
from effc.ir.facts import stage_files
from effc.ir.manifest import Manifest, TensorRecord
from effc.ir.opset import name_of
from effc.ir.printer import print_stage
from effc.ir.program import Stage
from effc.ir.serialize import stage_from_json
from effc.runtime.loader import read_document, read_manifest

Change = dict[str, Any]
"""`{"what", "a", "b"}`; a side where the thing does not exist is None."""

# Figures of a report that two users would ask for first: path in report.json -> what it is.
FIGURES = {
    "bytes.weights_after": "bytes of weights",
    "bytes.cache_per_token": "bytes of cache per token",
    "bytes.cache_at_context": "bytes of cache at the full context",
    "quality.kl.mean": "KL divergence, nats per token",
    "quality.perplexity.ratio": "perplexity over the original's",
    "quality.top1.mean": "agreement of the likeliest token",
}
TIMES = {
    "quality.time.prefill.rewritten_s": "seconds of prefill",
    "quality.time.decode.rewritten_s": "seconds per decoded token",
}


@dataclass(frozen=True)
class _Side:
    """What one artifact says of itself."""

    manifest: Manifest
    stages: dict[str, Stage]
    policy: str
    report: dict[str, Any]


def compare(a: Path, b: Path, *, text: bool = False) -> dict[str, Any]:
    """What differs between two artifacts, JSON-ready.

    Args:
        a: folder of the first artifact.
        b: folder of the second.
        text: also compare the printed programs line by line.

    Returns:
        "equal", and a list or mapping for each of "policy", "versions", "facts", "stages",
        "weights", "cache", "kernels", "notes", "figures", "times"; empty where nothing differs.
        Times are measured anew by every compilation and do not make artifacts unequal.

    Raises:
        ArtifactError: E0601 to E0604, as when an artifact is loaded.
    """
    one, two = _read(a), _read(b)
    facts_a, facts_b = _facts(one.manifest), _facts(two.manifest)
    found: dict[str, Any] = {
        "policy": _lines(one.policy, two.policy, "policy.toml"),
        "versions": changes(_versions(one), _versions(two)),
        "facts": changes(facts_a["program"], facts_b["program"]),
        "stages": _stages(one.stages, two.stages, text),
        "weights": _weights(one.manifest, two.manifest),
        "cache": changes(facts_a["cache"], facts_b["cache"]),
        "kernels": changes(facts_a["kernels"], facts_b["kernels"]),
        "notes": _notes(facts_a["notes"], facts_b["notes"]),
        "figures": _figures(one.report, two.report, FIGURES),
    }
    times = _figures(one.report, two.report, TIMES)
    return {"a": str(a), "b": str(b), "equal": not any(found.values())} | found | {"times": times}


def changes(a: Mapping[str, object], b: Mapping[str, object]) -> list[Change]:
    """The entries of two nested mappings that differ, by dotted path, in the order of the first."""
    left, right = dict(_flat(a)), dict(_flat(b))
    return [
        {"what": key, "a": left.get(key), "b": right.get(key)}
        for key in {**left, **right}
        if left.get(key) != right.get(key)
    ]


def _flat(data: object, path: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(data, Mapping) and data:
        for key, value in data.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    elif isinstance(data, list) and data and isinstance(data[0], Mapping):
        for index, value in enumerate(data):
            yield from _flat(value, f"{path}[{index}]")
    else:
        yield path, data


def _read(folder: Path) -> _Side:
    if folder.is_file():
        raise ArtifactError(
            "E0601",
            "this is a file; two artifacts are compared, not policies or weights",
            where=str(folder),
            help="give two folders that `effc compile -o` wrote; for texts use diff",
        )
    manifest = read_manifest(folder)
    stages = {}
    for name in stage_files(manifest.facts, str(folder)):
        place = str(folder / name)
        content = read_document(folder, name)
        if content is None:
            untrusted.damaged("the manifest does not list this file", place)
        stage = stage_from_json(untrusted.parse_json(content.encode(), place), place)
        stages[stage.name] = stage
    report = _object(read_document(folder, "report.json"))
    return _Side(manifest, stages, read_document(folder, "policy.toml") or "", report)


def _object(text: str | None) -> dict[str, Any]:
    """The JSON object in a text; empty where there is none."""
    data = json.loads(text) if text else {}
    return data if isinstance(data, dict) else {}


def _versions(side: _Side) -> dict[str, object]:
    """What the artifact was made with."""
    environment = side.report.get("environment")
    return {"made with": dict(side.manifest.versions), "environment": environment or {}}


def _facts(manifest: Manifest) -> dict[str, Any]:
    facts = dict(manifest.facts)
    program = {key: facts[key] for key in ("model", "device", "threads", "loop", "page_size")}
    inputs = {stage["name"]: _signature(stage) for stage in facts["stages"]}  # type: ignore[attr-defined]
    cache = {**facts["cache"], "schedule": facts["schedule"]}  # type: ignore[dict-item]
    ties = {"ties": dict(manifest.ties)} if manifest.ties else {}
    return {
        "program": {**program, "signature": inputs, **ties},
        "cache": cache,
        "kernels": facts["kernels"],
        "notes": facts["notes"],
    }


def _signature(stage: Mapping[str, Any]) -> dict[str, object]:
    shapes = {i["name"]: json.dumps(i, sort_keys=True) for i in stage["inputs"]}
    return {"inputs": shapes, "results": ", ".join(stage["outputs"])}


def _stages(a: Mapping[str, Stage], b: Mapping[str, Stage], text: bool) -> dict[str, Change]:
    """Stage -> operators with another number of calls, and how many printed lines differ."""
    found: dict[str, Change] = {}
    for name in {**a, **b}:
        one, two = a.get(name), b.get(name)
        lines = _lines(_printed(one), _printed(two), name)
        if lines:
            entry = {"in": "both" if one and two else "a" if one else "b"}
            counts = changes(_operators(one), _operators(two))
            found[name] = {**entry, "operators": counts, "lines": _changed_lines(lines)}
            found[name] |= {"text": lines} if text else {}
    return found


def _printed(stage: Stage | None) -> str:
    return print_stage(stage) if stage else ""


def _operators(stage: Stage | None) -> dict[str, object]:
    nodes = stage.graph.nodes if stage else ()
    # Names hold dots of their own, which must not be taken for levels.
    return dict(Counter(str(name_of(n.target)) for n in nodes if n.op == "call_function"))


def _lines(a: str, b: str, name: str) -> list[str]:
    """A unified diff; empty when both are equal."""
    pair = (a.splitlines(), b.splitlines())
    return list(difflib.unified_diff(*pair, f"a/{name}", f"b/{name}", lineterm="", n=2))


def _changed_lines(lines: list[str]) -> dict[str, int]:
    body = [line for line in lines if not line.startswith(("---", "+++"))]
    return {side: sum(line[:1] == sign for line in body) for side, sign in (("a", "-"), ("b", "+"))}


def _weights(a: Manifest, b: Manifest) -> dict[str, Any]:
    """Tensors of one side alone, and those that differ in shape, type or values."""
    both = [name for name in a.tensors if name in b.tensors]
    found = {
        "only_a": [_tensor(name, a) for name in a.tensors if name not in b.tensors],
        "only_b": [_tensor(name, b) for name in b.tensors if name not in a.tensors],
        "changed": [
            {"name": name, "what": what, "a": str(left), "b": str(right)}
            for name in both
            for what, left, right in _tensor_changes(a.tensors[name], b.tensors[name])
        ],
    }
    bytes_ = {"a": _total(a), "b": _total(b)}
    return found | {"bytes": bytes_} if any(found.values()) else {}


def _tensor_changes(a: TensorRecord, b: TensorRecord) -> Iterator[tuple[str, object, object]]:
    """The first thing that differs: values are not worth naming where the form differs."""
    if a.shape != b.shape:
        yield "shape", list(a.shape), list(b.shape)
    elif a.dtype != b.dtype:
        yield "dtype", a.dtype, b.dtype
    elif a.sha256 != b.sha256:
        yield "values", a.sha256[:12], b.sha256[:12]


def _tensor(name: str, manifest: Manifest) -> dict[str, object]:
    record = manifest.tensors[name]
    form = {"shape": list(record.shape), "dtype": record.dtype}
    return {"name": name, **form, "bytes": _nbytes(record)}


def _nbytes(record: TensorRecord) -> int:
    return math.prod(record.shape) * literals.DTYPES[record.dtype].itemsize


def _total(manifest: Manifest) -> int:
    return sum(map(_nbytes, manifest.tensors.values()))


def _notes(a: list[str], b: list[str]) -> list[Change]:
    only_a = [{"what": "note", "a": note, "b": None} for note in a if note not in b]
    return only_a + [{"what": "note", "a": None, "b": note} for note in b if note not in a]


def _figures(a: Mapping[str, Any], b: Mapping[str, Any], names: Mapping[str, str]) -> list[Change]:
    left, right = dict(_flat(a)), dict(_flat(b))
    return [
        {"what": what, "a": left.get(path), "b": right.get(path)}
        for path, what in names.items()
        if left.get(path) != right.get(path)
    ]
