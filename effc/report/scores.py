"""The page of `effc evaluate --html`: a table of scores, and needle grids as heat maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from effc.report.figures import show
from effc.report.html import render_page
from effc.report.svg import Chart, across, element

ROW = 44
_FAINTEST, _STRONGEST = 0.06, 0.6  # ink stays readable on both, in light and in dark


def render_scores(found: Mapping[str, Any]) -> str:
    """The page.

    Args:
        found: what `effc evaluate --json` prints.

    Returns:
        A whole HTML document without references to other files.
    """
    items = [entry for entry in found["tasks"] if entry["kind"] == "items"]
    texts = [entry for entry in found["tasks"] if entry["kind"] == "text"]
    grids = {
        entry["name"]: heat_map(f"grid-{number}", entry["name"], entry["grid"])
        for number, entry in enumerate(items)
        if entry["grid"]
    }
    return render_page(
        "scores.html", found=found, items=items, texts=texts, grids=grids, score=score
    )


def score(entry: Mapping[str, Any]) -> Markup:
    """A share, or a difference of two, with its standard error; the exact value is a tooltip."""
    mean = show(entry["mean"], "{:.3f}".format)
    if entry["stderr"] is None:
        return mean
    spread = Markup('{} <span class="spread">±\N{NO-BREAK SPACE}{}</span>')
    return spread.format(mean, show(entry["stderr"], "{:.3f}".format))


def heat_map(name: str, task: str, grid: Mapping[str, Any]) -> Markup:
    """Accuracy by length of the context (down) and place of what was asked for (across).

    Args:
        name: unique on the page.
        task: what was asked.
        grid: lengths, places and cells of `effc.evaluate.scorecard.items_entry`.
    """
    lengths, places, cells = grid["lengths"], grid["places"], grid["cells"]
    flat = [
        (f"{length} tokens, {place}", cell)
        for length, row in zip(lengths, cells, strict=True)
        for place, cell in zip(places, row, strict=True)
    ]
    said = "; ".join(f"{where}: {_words(cell)}" for where, cell in flat)
    height = ROW * len(lengths) + 24
    chart = Chart(name, f"Accuracy of {task} by length and place", said, height, "with-axis")
    slot = 1 / len(places)
    for row, (length, line) in enumerate(zip(lengths, cells, strict=True)):
        top = ROW * row
        chart.text(-8, top + ROW / 2 + 4, length, "tick", text_anchor="end")
        for column, cell in enumerate(line):
            _cell(chart, column * slot, slot, top, cell, f"{length}, {places[column]}")
    for column, place in enumerate(places):
        middle = across((column + 0.5) * slot)
        chart.text(middle, ROW * len(lengths) + 19, place, "tick", text_anchor="middle")
    return chart.render()


def _cell(
    chart: Chart, left: float, width: float, top: float, cell: Mapping[str, Any] | None, where: str
) -> None:
    hint = element("title", f"{where}: {_words(cell)}")
    shade = 0.0 if cell is None else _FAINTEST + (_STRONGEST - _FAINTEST) * cell["mean"]
    chart.add(
        "rect",
        hint,
        x=across(left + 0.004),
        y=top + 2,
        width=across(width - 0.008),
        height=ROW - 4,
        rx=3,
        class_="after",
        fill_opacity=round(shade, 3),
    )
    middle = across(left + width / 2)
    words = "–" if cell is None else f"{cell['mean']:.2f}"
    chart.text(middle, top + ROW / 2 + 5, words, "label", text_anchor="middle")


def _words(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return "no item"
    doubt = "" if cell["stderr"] is None else f" ± {cell['stderr']:.3f}"
    return f"{cell['mean']:.3f}{doubt} of {cell['n']} items"
