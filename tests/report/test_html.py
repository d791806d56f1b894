"""report.html as a text: safe whatever the report holds, whole, and accessible."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from effc.report import html, render_html

HOSTILE = (
    "</script><script>window.hacked=1</script><!--<img src=x onerror=window.hacked=1>"
    "\"' onclick=window.hacked=1 {{ 7*7 }} {% raw %} &amp; </style></title></svg> \u2028"
)
TEMPLATES = Path(html.__file__).parent / html.FOLDER


class Document(HTMLParser):
    """The elements of a page, their attributes, and the text of some."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open[-1]][-1] += data

    def skeleton(self) -> Counter[tuple[str, tuple[str, ...]]]:
        """Elements with the names of their attributes: all that texts must not change."""
        return Counter((tag, tuple(sorted(attributes))) for tag, attributes in self.elements)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def changed(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """The same data with other leaves."""
    if isinstance(value, dict):
        return {key: changed(item, leaf) for key, item in value.items()}
    if isinstance(value, list):
        return [changed(item, leaf) for item in value]
    return leaf(value)


def with_texts(report: dict[str, Any], text: str) -> dict[str, Any]:
    """A report in which every text, and every free key, is this one."""
    report = changed(report, lambda leaf: text if isinstance(leaf, str) else leaf)
    report["environment"]["packages"][text] = text
    report["prediction"]["bytes"][text] = 7
    report["quality"]["time"][text] = {"ratio": 1.0}
    for rule in report["plan"]["rules"]:
        rule["choices"][text] = {"method": text, "options": {text: text}}
    return report


def data_of(page: str) -> Any:
    """The report that a page carries."""
    found = re.search(r'<script type="application/json" id="report">(.*?)</script>', page, re.S)
    assert found is not None
    return json.loads(found[1])


def test_texts_change_nothing_but_text(report: dict[str, Any]) -> None:
    harmless = Document(render_html(with_texts(report, "a")))
    hostile = Document(render_html(with_texts(report, HOSTILE)))
    assert hostile.skeleton() == harmless.skeleton()
    assert len(hostile.all("script")) == 2


def test_the_data_block_gives_back_what_was_put_in(report: dict[str, Any]) -> None:
    hostile = with_texts(report, HOSTILE)
    page = render_html(hostile)
    assert data_of(page) == hostile
    block = page.split('id="report">')[1].split("</script>")[0]
    assert not re.search("[<>&\u2028]", block)


def test_texts_where_numbers_belong(report: dict[str, Any]) -> None:
    broken = changed(report, lambda leaf: HOSTILE if isinstance(leaf, int | float) else leaf)
    document = Document(render_html(broken))
    assert len(document.all("script")) == 2
    assert not document.all("img")


def test_nothing_but_the_page_itself_may_run(report: dict[str, Any]) -> None:
    page = render_html(report)
    document = Document(page)
    (policy,) = [m["content"] for m in document.all("meta") if "http-equiv" in m]
    assert policy is not None and policy.startswith("default-src 'none'")
    for tag, kind in (("style", "style-src"), ("script", "script-src")):
        text = document.texts[tag][-1]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    assert not any(k == "style" or k.startswith("on") for _, a in document.elements for k in a)


def test_one_file_is_enough(report: dict[str, Any]) -> None:
    document = Document(render_html(report))
    places = [a[k] or "" for _, a in document.elements for k in ("src", "href") if k in a]
    assert all(place.startswith("#") or place == "data:," for place in places)
    assert not re.search(r"url\(|@import|https?:", document.texts["style"][-1])


@pytest.mark.parametrize("nothing", (None, "absent", {}, []))
def test_any_part_may_be_missing(report: dict[str, Any], nothing: Any) -> None:
    for part in list(report):
        partial = copy.deepcopy(report)
        if nothing == "absent":
            del partial[part]
        elif isinstance(nothing, type(report[part])) or nothing is None:
            partial[part] = nothing
        assert Document(render_html(partial)).all("h1")


@pytest.mark.parametrize("part", ("quality", "prediction", "target", "bytes", "plan"))
def test_any_part_of_a_part_may_be_missing(report: dict[str, Any], part: str) -> None:
    for key in list(report[part]):
        for left in (
            {k: v for k, v in report[part].items() if k != key},
            report[part] | {key: None},
        ):
            assert Document(render_html(report | {part: left})).all("h1")


def section(page: str, name: str) -> str:
    return page.split(f'<section id="{name}"')[1].split("</section>")[0]


def test_an_empty_report_claims_nothing() -> None:
    page = render_html({})
    assert "<data" not in page
    assert "No gates were set" in page
    assert "was not measured" in page


def test_what_was_not_measured_says_so(report: dict[str, Any]) -> None:
    page = render_html(report | {"quality": None})
    for name in ("quality", "time"):
        assert "Not measured" in section(page, name)
        assert "<data" not in section(page, name)


@pytest.mark.parametrize(
    ("held", "words", "state"),
    (
        ((True, True), "All 2 gates held", "held"),
        ((True, False), "1 of 2 gates broken: max_time_ratio", "broken"),
        ((None, True), "1 of 2 gates not measured: max_kl", "partial"),
        ((None, False), "1 of 2 gates broken: max_time_ratio", "broken"),
        ((True,), "The gate held", "held"),
        ((), "No gates were set", "none"),
    ),
)
def test_the_verdict(
    report: dict[str, Any], held: tuple[bool | None, ...], words: str, state: str
) -> None:
    gates = report["quality"]["gates"]
    kept = [gate | {"held": h} for gate, h in zip(gates, held, strict=False)]
    report["quality"]["gates"] = kept
    page = render_html(report)
    assert (
        f'<p class="gates {state}"><span class="mark" aria-hidden="true"></span>{words}</p>' in page
    )


def test_a_pass_shows_its_divergence_when_there_is_one(report: dict[str, Any]) -> None:
    assert ">KL</th>" not in section(render_html(report), "passes")
    without = section(render_html(report), "passes").count("<data")
    report["passes"][8]["kl"] = 0.0123
    page = section(render_html(report), "passes")
    assert ">KL</th>" in page and 'value="0.0123"' in page
    assert page.count("<data") == without + 1


def test_tables_and_charts_can_be_read_aloud(report: dict[str, Any]) -> None:
    page = render_html(report)
    document = Document(page)
    assert len(document.all("caption")) == len(document.all("table")) > 10
    assert all(th.get("scope") in ("row", "col") for th in document.all("th"))
    charts = document.all("svg")
    assert len(charts) == 4 and all(svg["role"] == "img" for svg in charts)
    assert len(document.all("desc")) == 4
    ids = [a["id"] for _, a in document.elements if "id" in a]
    assert len(set(ids)) == len(ids)
    named = [n for a in document.elements for n in (a[1].get("aria-labelledby") or "").split()]
    links = [(a["href"] or "")[1:] for a in document.all("a")]
    assert set(named + links) <= set(ids)
    assert page.count("<h1") == 1
    assert document.all("html")[0]["lang"] == "en"


def test_templates_escape_everything() -> None:
    for path in TEMPLATES.glob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*safe|autoescape|\bMarkup\b", text), path.name
