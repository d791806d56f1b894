"""Coverage rows as text: tables for the documentation, failures grouped by their cause."""

from __future__ import annotations

import re
from pathlib import Path

from examples.onnx_exports.coverage import TOLERANCE, Row
from examples.onnx_exports.models import DECODER, MODELS

BEGIN, END = "<!-- coverage of exports -->", "<!-- end of coverage -->"

_ORDER = {model.name: index for index, model in enumerate(MODELS)}


def tables(rows: list[Row]) -> str:
    """One table per exporter, decoders before other models, in the order of `MODELS`."""
    parts = []
    for exporter in dict.fromkeys(row.exporter for row in rows):
        mine = sorted((r for r in rows if r.exporter == exporter), key=lambda r: _ORDER[r.family])
        good = sum(row.good for row in mine)
        made = sum(not row.made for row in mine)
        parts.append(f"### {exporter}\n\n{good} of {made} files as onnxruntime runs them.\n")
        decoders = [row for row in mine if row.kind == DECODER]
        others = [row for row in mine if row.kind != DECODER]
        parts += [_decoders(decoders)] if decoders else []
        parts += [_others(others)] if others else []
    return "\n".join(parts)


def _decoders(rows: list[Row]) -> str:
    heads = ["family", "graph", "logits", "same tokens", "linear, attention, norm", "as checkpoint"]
    rounded = any(row.as_written is not None for row in rows)
    heads += ["as written"] if rounded else []
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        if row.made or row.error:
            lines.append(f"| {row.family} | {_reason(row)} {'| ' * (len(heads) - 2)}|")
            continue
        tokens = ", ".join(map(_mark, row.tokens.values())) + (
            "" if row.batch > 1 else " (one row)"
        )
        kinds = ", ".join(str(row.sites.get(kind, 0)) for kind in ("linear", "attention", "norm"))
        same = _mark(row.sites == row.expected) if row.expected else "refused"
        cells = [row.family, _error(row.imported), _error(row.logits), tokens, kinds, same]
        cells += [f"{1 - (row.as_written or 0):.0%}"] if rounded else []
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _others(rows: list[Row]) -> str:
    lines = ["| family | graph |", "|---|---|"]
    for row in rows:
        bad = row.made or row.error
        lines.append(f"| {row.family} | {_reason(row) if bad else _error(row.imported)} |")
    return "\n".join(lines) + "\n"


def _reason(row: Row) -> str:
    text = f"not exported: {row.made}" if row.made else row.error
    return text.replace("|", "\\|")[:160]


def _error(value: float | None) -> str:
    return "" if value is None else f"{value:.0e}" if value <= TOLERANCE else f"**{value:.0e}**"


def _mark(value: bool | None) -> str:
    return {True: "yes", False: "**no**", None: ""}[value]


def replace_tables(document: Path, rows: list[Row]) -> None:
    """Put the tables between the markers of a document.

    Raises:
        ValueError: it has no markers.
    """
    text = document.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document} lacks the lines {BEGIN} and {END}")
    new = f"{head}{BEGIN}\n\n{tables(rows)}\n{END}{tail}"
    document.write_text(new, encoding="utf-8")


def failures(rows: list[Row]) -> str:
    """Every file that is not as it should be, under the cause it shares with others."""
    causes: dict[str, list[Row]] = {}
    for row in rows:
        if not row.made and (not row.good or _differs(row)):
            causes.setdefault(_cause(row), []).append(row)
    made = [row for row in rows if not row.made]
    good = sum(row.good for row in made)
    lines = [f"# Failures: {good} of {len(made)} files are good", ""]
    for cause, members in sorted(causes.items(), key=lambda item: -len(item[1])):
        lines += [f"## {len(members)} files: {cause}", "", f"first: {_first(members[0])}", ""]
        lines += [f"- {row.exporter}/{row.family}: {_first(row)}" for row in members] + [""]
    return "\n".join(lines)


def _differs(row: Row) -> bool:
    return bool(row.expected) and row.sites != row.expected


def _first(row: Row) -> str:
    if row.error:
        return row.error
    found = f"graph {_error(row.imported)}, logits {_error(row.logits)}, tokens {row.tokens}"
    sites = f", sites {row.sites} instead of {row.expected}" if _differs(row) else ""
    misses = f", near misses: {'; '.join(row.misses[:3])}" if sites and row.misses else ""
    return found + sites + misses


def _cause(row: Row) -> str:
    """The error without what is particular to one file."""
    if row.error:
        return re.sub(r"'[^']*'|\S*/\S*|\d+", "_", row.error)[:120]
    if row.imported is None or row.imported > TOLERANCE:
        return "the graph's outputs differ"
    if row.logits is None or row.logits > TOLERANCE:
        return "logits differ"
    return "sites differ" if row.good else "tokens differ"
