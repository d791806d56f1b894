"""report.html in a real browser: silent, self-contained, right, and readable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from effc.report import render_html
from tests.report.browser import Browser, Page, opened
from tests.report.test_html import HOSTILE, with_texts

PHONE, DESK = 390, 1280

OPEN_ALL = "for (const d of document.querySelectorAll('details')) d.open = true"

OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"

# {caption: {row header: [values of its figures]}}
TABLES = """
Object.fromEntries([...document.querySelectorAll('table')].map(table => [
  table.caption.textContent,
  Object.fromEntries([...table.tBodies[0].rows].map(row => [
    row.cells[0].textContent.trim(),
    [...row.querySelectorAll('data')].map(d => Number(d.value)),
  ])),
]))
"""

# The contrast of every piece of text with what lies behind it, by WCAG 2; the worst first.
CONTRASTS = """
(() => {
  const parts = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parts(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const e of document.body.querySelectorAll('*')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.getClientRects().length) continue;
    const style = getComputedStyle(e);
    const front = light(parts(e instanceof SVGElement ? style.fill : style.color));
    const back = light(behind(e));
    const ratio = (Math.max(front, back) + 0.05) / (Math.min(front, back) + 0.05);
    found.push([Math.round(ratio * 100) / 100, e.tagName, e.textContent.trim().slice(0, 40)]);
  }
  return found.sort((a, b) => a[0] - b[0]);
})()
"""


# Words of a chart that leave the page or cover others of the same chart.
MISPLACED = """
[...document.querySelectorAll('svg')].flatMap(svg => {
  const words = [...svg.querySelectorAll('text')]
    .map(text => [text.textContent, text.getBoundingClientRect()]);
  const width = document.documentElement.clientWidth;
  const apart = (a, b) =>
    a.right <= b.left || b.right <= a.left || a.bottom <= b.top + 3 || b.bottom <= a.top + 3;
  return words
    .filter(([word, box], i) => box.left < -1 || box.right > width + 1
      || words.slice(0, i).some(([other, earlier]) => !apart(box, earlier)))
    .map(([word, box]) => word);
})
"""


@pytest.fixture(scope="module")
def file(written: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_html(written), encoding="utf-8")
    return path


@pytest.fixture
def page(browser: Browser, file: Path) -> Iterator[Page]:
    with opened(browser, file, width=DESK) as tab:
        yield tab


@pytest.mark.parametrize("dark", (False, True), ids=("light", "dark"))
@pytest.mark.parametrize("width", (PHONE, DESK))
def test_silent_whole_and_readable(browser: Browser, file: Path, width: int, dark: bool) -> None:
    with opened(browser, file, width=width, dark=dark) as page:
        page.evaluate(OPEN_ALL)
        assert page.complaints() == []
        assert page.requests() == [file.as_uri()]
        assert page.evaluate(OVERFLOW) == 0
        assert page.evaluate(MISPLACED) == []
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 300
        assert [entry for entry in contrasts if entry[0] < 4.5] == []


def test_light_and_dark_differ(browser: Browser, file: Path) -> None:
    pictures, papers = [], []
    for dark in (False, True):
        with opened(browser, file, width=DESK, dark=dark) as page:
            pictures.append(page.screenshot())
            papers.append(
                page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
            )
    assert pictures[0] != pictures[1]
    assert papers == ["rgb(252, 252, 250)", "rgb(21, 23, 26)"]


def test_the_figures_are_those_of_the_report(page: Page, written: dict[str, Any]) -> None:
    tables, quality = page.evaluate(TABLES), written["quality"]
    for verdict in written["passes"]:
        found = tables["One row per pass, in order"][verdict["pass_name"]]
        expected = [verdict[k] for k in ("matched", "applied", "skipped")]
        sizes = dict.fromkeys((verdict["bytes_before"], verdict["bytes_after"]))
        assert found == [*expected, *sizes, verdict["seconds"]]
    for site in written["sites"]:
        layer = [] if site["layer"] is None else [site["layer"]]
        before, after = site["bytes_before"], site["bytes_after"]
        saved = [1 - after / before] if before else []
        assert tables["Bytes by site"][site["name"]] == [*layer, before, after, *saved]
    for entry in written["prediction_error"]:
        found = tables["What the plan predicted, beside what was measured"]
        expected = [entry[k] for k in ("predicted", "measured", "error")]
        assert found[entry["what"].replace("_", " ")] == expected
    measures = tables["Measures, with standard errors"]
    assert measures["KL divergence, mean"] == [quality["kl"]["mean"], quality["kl"]["stderr"]]
    assert measures["Perplexity ratio"] == [1.0127, 0.00213]
    assert tables["Gates"]["max_kl"] == [0.05, 0.01234567, 0.00087654]
    timed = quality["time"]["decode"]
    expected = [timed["original_s"], timed["rewritten_s"], timed["ratio"], *timed["spread"], 10]
    assert tables["Paired timings, original and rewritten in turn"]["decode"] == expected
    for stage in written["prediction"]["stages"]:
        assert tables["Predicted per stage"][stage["name"]] == [
            stage["tokens"],
            stage["flops"],
            *(stage["bytes"][k] for k in ("weights", "cache", "activations")),
            stage["intensity"],
            stage["seconds"],
        ]


def test_the_page_carries_the_report(page: Page, written: dict[str, Any]) -> None:
    assert page.evaluate("JSON.parse(document.getElementById('report').textContent)") == written


def test_headline_figures(page: Page, written: dict[str, Any]) -> None:
    tiles = page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('.tile')].map(t => "
        "[t.querySelector('dt').textContent, Number(t.querySelector('.main data').value)]))"
    )
    assert tiles == {
        "Weights": written["bytes"]["weights_after"],
        "Cache at 1,024 tokens": written["bytes"]["cache_at_context"],
        "KL divergence": 0.01234567,
        "Perplexity ratio": 1.0127,
        "Same first choice": 0.94631,
        "Decoding a token": 0.00281,
    }


def test_tables_can_be_sorted(page: Page, written: dict[str, Any]) -> None:
    page.evaluate(OPEN_ALL)
    buttons = "[...document.querySelectorAll('#sizes th button')]"
    button = f"{buttons}.find(b => b.textContent === 'after')"
    expected = sorted(site["bytes_after"] for site in written["sites"])
    state = f"{button}.parentElement.ariaSort"
    cells = "[...document.querySelectorAll('#sizes table.sortable tbody tr')].map(row => "
    cells += "Number(row.cells[5].querySelector('data').value))"
    page.evaluate(f"{button}.click()")
    assert (page.evaluate(cells), page.evaluate(state)) == (expected, "ascending")
    page.evaluate(f"{button}.click()")
    assert (page.evaluate(cells), page.evaluate(state)) == (expected[::-1], "descending")


def test_printed_pages_are_light_and_whole(browser: Browser, file: Path) -> None:
    with opened(browser, file, width=794, dark=True) as page:
        page.prefers(dark=True, media="print")
        page.evaluate(OPEN_ALL)
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
        assert page.evaluate(OVERFLOW) == 0
        assert page.evaluate(MISPLACED) == []
        assert [entry for entry in page.evaluate(CONTRASTS) if entry[0] < 4.5] == []


def test_printing_shows_what_was_folded(page: Page) -> None:
    folded = "document.querySelectorAll('details:not([open])').length"
    before = page.evaluate(folded)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert before > 0 and page.evaluate(folded) == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(folded) == before


@pytest.mark.parametrize("width", (PHONE, DESK))
def test_hostile_texts_stay_texts(
    browser: Browser, report: dict[str, Any], tmp_path: Path, width: int
) -> None:
    path = tmp_path / "report.html"
    path.write_text(render_html(with_texts(report, HOSTILE)), encoding="utf-8")
    with opened(browser, path, width=width) as page:
        assert page.evaluate("window.hacked") is None
        assert page.requests() == [path.as_uri()]
        assert page.complaints() == []
        assert page.evaluate("document.querySelector('h1').textContent") in HOSTILE
        assert page.evaluate(OVERFLOW) == 0
