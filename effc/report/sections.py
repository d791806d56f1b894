"""Long lists of a report, condensed: what differs only in its place becomes one row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from effc.report.figures import is_number

Json = Mapping[str, Any]

_CACHE_FIELDS = ("kv_heads", "key_width", "value_width", "key_format", "value_format", "group")


def cache_rows(sites: Iterable[Json]) -> list[dict[str, Any]]:
    """Cache sites, those of the same form in one row with their layers."""
    rows: dict[str, dict[str, Any]] = {}
    for site in sites:
        form = {name: site.get(name) for name in _CACHE_FIELDS}
        row = rows.setdefault(str(form), form | {"layers": []})
        row["layers"].append(site.get("layer"))
    return [
        row | {"sites": len(row["layers"]), "layers": ranges(row["layers"])}
        for row in rows.values()
    ]


def misses(entries: Iterable[Json]) -> list[dict[str, Any]]:
    """Near misses, those with the same rule and reason in one row with the first place."""
    rows: dict[tuple[object, ...], dict[str, Any]] = {}
    for entry in entries:
        key = (entry.get("rule"), entry.get("stage"), entry.get("reason"))
        row = rows.setdefault(key, {**entry, "count": 0})
        row["count"] += 1
    return list(rows.values())


def skipped(entries: Iterable[Json]) -> dict[str, list[str]]:
    """Reason -> the sites left alone for it."""
    reasons: dict[str, list[str]] = {}
    for entry in entries:
        reasons.setdefault(str(entry.get("reason")), []).append(str(entry.get("site")))
    return reasons


def counters(quality: Json) -> dict[str, tuple[Any, Any]]:
    """Counter -> its numbers for the original and for the rewritten model."""
    both = quality.get("counters") or {}
    original, rewritten = (both.get(side) or {} for side in ("original", "rewritten"))
    pairs = {name: (original.get(name), rewritten.get(name)) for name in {**original, **rewritten}}
    return {name: pair for name, pair in pairs.items() if any(map(is_number, pair))}


def lost_layers(entries: Iterable[Json]) -> str:
    """The layers after which the error is no number."""
    lost = [entry.get("layer") for entry in entries if not is_number(entry.get("relative_error"))]
    return ranges(lost)


def ranges(numbers: Sequence[Any]) -> str:
    """Layer numbers as text: [0, 1, 2, 5, None] is "0–2, 5, outside"."""
    inside = sorted({n for n in numbers if isinstance(n, int)})
    runs: list[list[int]] = []
    for n in inside:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    words = [str(a) if a == b else f"{a}–{b}" for a, b in runs]
    return ", ".join(words + (["outside"] if len(inside) < len(set(numbers)) else []))


def settings(options: Mapping[str, Any] | None) -> str:
    """Options as in a policy: `bits = 4, group = 32`."""
    given = options if isinstance(options, Mapping) else {}
    return ", ".join(f"{key} = {json.dumps(value)}" for key, value in given.items())
