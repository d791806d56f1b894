"""Scores as lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from effc.cli.output import table_lines

Json = Mapping[str, Any]


def score_lines(found: Json) -> list[str]:
    """All that `effc evaluate` found, a block of lines per task.

    Args:
        found: what the command prints with --json.
    """
    damage = f", {found['ablation']}" if found["ablation"] else ""
    lines = [f"{_named(found)}{damage}, seed {found['seed']}"]
    for entry in found["tasks"]:
        lines.append("")
        lines += _items(entry, found) if entry["kind"] == "items" else _text(entry, found)
    return lines + [f"note: {note}" for note in found["notes"]]


def _named(model: Json) -> str:
    return f"{model['model']} ({model['kind']}, {model['dtype']})"


def _items(entry: Json, found: Json) -> Iterator[str]:
    low, high = entry["interval"]
    yield (
        f"{entry['name']}: {share(entry)} of {entry['n']} items correct "
        f"(95 % from {low:.3f} to {high:.3f})"
    )
    yield f"  chance {entry['chance']:.3g}, shortcut {share(entry['shortcut'])}"
    for name, values in entry["facets"].items():
        cells = [f"{value} {share(score)} (n {score['n']})" for value, score in values.items()]
        yield f"  by {name}: {', '.join(cells)}"
    if entry["grid"]:
        yield from grid_lines(entry["grid"])
    if entry["against"]:
        yield from _against(entry["against"], found)
    for wrong in entry["wrong"][:1]:
        yield f"  first wrong, item {wrong['index']}: {_quoted(wrong)}"


def _against(pair: Json, found: Json) -> Iterator[str]:
    gap = pair["difference"]
    low, high = gap["interval"]
    doubt = "" if gap["stderr"] is None else f" ± {gap['stderr']:.3f}"
    yield f"  against {_named(found['against'])}: {share(pair)}"
    yield (
        f"  difference {gap['mean']:+.3f}{doubt} (95 % from {low:+.3f} to {high:+.3f}); right "
        f"only here {pair['only_here']}, only there {pair['only_there']}, McNemar p "
        f"{pair['p']:.2g}; same answer to {pair['same_answers']} of {pair['n']}"
    )


def grid_lines(grid: Json) -> list[str]:
    """The needle grid as text: a row per length, a column per place."""
    rows = [
        [length, *("-" if cell is None else f"{share(cell)} (n {cell['n']})" for cell in row)]
        for length, row in zip(grid["lengths"], grid["cells"], strict=True)
    ]
    return [f"  {line}" for line in table_lines(("length", *grid["places"]), rows)]


def _text(entry: Json, found: Json) -> Iterator[str]:
    is_kl = entry["name"] == "kl"
    unit = " nats per token" if is_kl else ""
    yield (
        f"{entry['name']}: {_uncertain(entry['mean'], entry['stderr'])}{unit} over {entry['n']} "
        f"tokens in {entry['rows']} rows"
    )
    yield f"  {entry['text']['label']}"
    if is_kl:
        top1 = entry["top1"]
        yield f"  reference {found['against']['model']}, largest {_number(entry['max'])}"
        yield f"  top-1 agreement {_uncertain(top1['mean'], top1['stderr'])}"
    elif entry["against"]:
        other = entry["against"]
        ratio = _uncertain(other["ratio"], other["ratio_stderr"])
        yield f"  against {found['against']['model']}: {_number(other['mean'])}, ratio {ratio}"


def share(score: Json) -> str:
    """A share of correct answers with its standard error."""
    doubt = "" if score["stderr"] is None else f" ± {score['stderr']:.3f}"
    return f"{score['mean']:.3f}{doubt}"


def _quoted(wrong: Json) -> str:
    said, expected = (_cut(wrong[name]) for name in ("said", "expected"))
    return f"said {said!r}, expected {expected!r}"


def _cut(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"...{text[-most:]}"


def _uncertain(mean: float | None, stderr: float | None) -> str:
    return _number(mean) + ("" if stderr is None else f" ± {stderr:.2g}")


def _number(value: float | None) -> str:
    return "not a number" if value is None else f"{value:.4g}"
