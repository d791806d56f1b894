"""The page of scores: complete, safe, and every cell of a heat map drawn."""

from __future__ import annotations

import html.parser
import json
import re

import pytest

from effc.evaluate.scorecard import items_entry
from effc.evaluate.scoring import run_task
from effc.evaluate.tasks.base import Item
from effc.report.scores import heat_map, render_scores
from tests.evaluate import scored

EVIL = "</script><script>alert(1)</script>"


class Page(html.parser.HTMLParser):
    """Collects elements, and notes those that are closed out of order."""

    VOID = ("meta", "link", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


@pytest.fixture
def found() -> dict[str, object]:
    scored.ITEMS[:] = [
        Item("w1", "w2", "w3", facets={"length": str(n // 2 * 64 + 64), "place": place})
        for n in range(4)
        for place in ("early", "late", "middle")
    ]
    said = [["w3", EVIL][n % 3 == 2] for n in range(12)]
    here = run_task(scored.Known(), scored.Scripted(said), 12)
    there = run_task(scored.Known(), scored.Scripted(["w3"] * 12), 12)
    entry = items_entry(here, there)
    scored.ITEMS.clear()
    kl = {"name": "kl", "kind": "text", "text": {"label": EVIL}, "mean": 0.5, "stderr": 0.01}
    kl |= {"max": 1.0, "n": 100, "rows": 4, "top1": {"mean": 0.9, "stderr": 0.02}, "seconds": 1.0}
    return {
        "model": EVIL,
        "kind": "original",
        "dtype": "float32",
        "against": {"model": "other", "kind": "artifact", "dtype": "float32"},
        "seed": 1,
        "ablation": "random-kv=0.5",
        "tasks": [entry, kl],
        "notes": ["a note"],
    }


def test_the_page_shows_every_figure_and_runs_no_foreign_script(found: dict[str, object]) -> None:
    page = Page(render_scores(found))
    assert [tag for tag, _ in page.elements].count("script") == 2
    for words in ("test.known", "0.667", "random-kv=0.5", "0.9", "a note", EVIL):
        assert words in page.text


def test_the_data_lie_in_the_page(found: dict[str, object]) -> None:
    text = render_scores(found)
    (data,) = re.findall(r'<script type="application/json" id="scores">(.*?)</script>', text)
    assert json.loads(data) == json.loads(json.dumps(found))


def test_a_heat_map_has_a_cell_per_length_and_place(found: dict[str, object]) -> None:
    grid = found["tasks"][0]["grid"]  # type: ignore[index]
    drawn = Page(str(heat_map("grid", "test.known", grid)))
    cells = [attrs for tag, attrs in drawn.elements if tag == "rect"]
    assert len(cells) == 6
    shades = [float(cell["fill-opacity"] or 0) for cell in cells]
    means = [cell["mean"] for row in grid["cells"] for cell in row]
    order = sorted(range(6), key=means.__getitem__)
    assert [shades[n] for n in order] == sorted(shades)
    assert shades[means.index(1.0)] > shades[means.index(0.0)]
    edges = [(float(c["x"][:-1]), float(c["width"][:-1])) for c in cells]  # type: ignore[index]
    assert all(x >= 0 and x + width <= 100 for x, width in edges)


def test_an_empty_cell_says_so() -> None:
    grid = {"lengths": ["64"], "places": ["early"], "cells": [[None]]}
    drawn = Page(str(heat_map("grid", "t", grid)))
    assert "no item" in drawn.text and "–" in drawn.text
