"""`effc explain`: what an error code, a method or a pass means."""

from __future__ import annotations

import dataclasses
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effc.cli.frame import DebugFlag, JsonFlag
from effc.cli.output import print_json, print_table
from effc.diagnostics import CATALOGUE, EffcError, nearest

if TYPE_CHECKING:
    from effc.explain.codes import Page
    from effc.explain.topics import MethodTopic, PassTopic

_WIDTH = 96


def explain(
    topic: Annotated[
        str | None,
        typer.Argument(
            metavar="[TOPIC]", help="An error code, a method, a pass or a rewrite rule."
        ),
    ] = None,
    matrix: Annotated[
        bool, typer.Option("--matrix", help="Print which methods and targets go together.")
    ] = False,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Explain an error code, a method or a pass."""
    if matrix and topic is not None:
        raise EffcError(
            "E0101",
            f"--matrix explains all methods at once, not {topic!r}",
            help="give one of them",
        )
    if matrix:
        _matrix(as_json=json)
    elif topic is None:
        _contents(as_json=json)
    else:
        _topic(topic, as_json=json)


def _topic(topic: str, *, as_json: bool) -> None:
    from effc.explain.codes import pages
    from effc.explain.topics import methods, passes

    if page := pages().get(topic.upper()):
        _show(_page_json(page), _page_text(page), as_json)
        return
    found = methods(topic)
    for method in found:
        _show(_method_json(method), _method_text(method), as_json)
    for one in passes().values():
        if topic == one.name or topic in (rule.name for rule in one.rules):
            _show(_pass_json(one), _pass_text(one), as_json)
            return
    if not found:
        raise _unknown(topic)


def _unknown(topic: str) -> EffcError:
    from effc.explain.topics import method_names, passes

    rules = [rule.name for one in passes().values() for rule in one.rules]
    names = [*CATALOGUE, *method_names(), *passes(), *rules]
    digits = topic.upper().removeprefix("E")
    padded = f"E{digits:>04}" if digits.isascii() and digits.isdigit() else ""
    near = padded if padded in CATALOGUE else nearest(topic, names)
    hint = f"did you mean '{near}'? " if near else ""
    return EffcError(
        "E0101",
        f"there is no error code, method, pass or rule {topic!r}",
        help=f"{hint}`effc explain` lists them",
    )


def _show(data: dict[str, object], text: str, as_json: bool) -> None:
    if as_json:
        print_json(data)
    else:
        print(text)


def _page_json(page: Page) -> dict[str, object]:
    return {"kind": "code", **dataclasses.asdict(page)}


def _page_text(page: Page) -> str:
    parts = [
        f"{page.code}: {page.title}",
        _paragraph("What happened", page.happened),
        _paragraph("Why effc refuses", page.why),
        "Example:\n" + textwrap.indent(page.example, "    "),
        textwrap.fill(page.remark, _WIDTH),
        _paragraph("What to do", page.remedy),
    ]
    return "\n\n".join(part for part in parts if part)


def _paragraph(label: str, text: str) -> str:
    return textwrap.fill(f"{label}: {text}", _WIDTH, break_long_words=False, break_on_hyphens=False)


def _pass_json(topic: PassTopic) -> dict[str, object]:
    return {"kind": "pass", **dataclasses.asdict(topic)}


def _pass_text(topic: PassTopic) -> str:
    from effc.explain.topics import SEMANTICS

    head = f"{topic.name}: {topic.summary}\nstage: {topic.stage}\n{SEMANTICS[topic.semantics]}"
    rules = [f"rule {rule.name}: {rule.summary}" for rule in topic.rules]
    return "\n\n".join(filter(None, (head, topic.text, "\n".join(rules))))


def _method_json(topic: MethodTopic) -> dict[str, object]:
    info = topic.info
    head = {"kind": "method", "name": info.name, "table": info.kind}
    return {**head, "summary": info.summary, "paper": info.paper, "text": topic.text}


def _method_text(topic: MethodTopic) -> str:
    info = topic.info
    paper = f"\npaper: {info.paper}" if info.paper else ""
    head = f"{info.name}: {info.summary}\ntable: [[{info.kind}]]{paper}"
    return "\n\n".join(filter(None, (head, topic.text, f"options: effc methods {info.name}")))


def _contents(*, as_json: bool) -> None:
    from effc.explain.codes import blocks
    from effc.explain.topics import method_names, passes

    if as_json:
        listed: dict[str, Any] = {
            "codes": [{"code": code, "title": title} for code, title in CATALOGUE.items()],
            "methods": method_names(),
            "passes": list(passes()),
        }
        print_json(listed)
        return
    for block, title in blocks().items():
        print(f"{block}xx: {title}")
        for code in (code for code in CATALOGUE if code.startswith(block)):
            print(f"  {code}  {CATALOGUE[code]}")
    print("methods: " + ", ".join(method_names()))
    print("passes: " + ", ".join(passes()))


def _matrix(*, as_json: bool) -> None:
    from effc.spec.legality import matrix_rows, reasons

    header, rows = matrix_rows()
    why = [{"first": a, "second": b, "reason": reason} for a, b, reason in reasons()]
    if as_json:
        print_json({"header": list(header), "rows": [list(row) for row in rows], "reasons": why})
        return
    print_table(header, rows)
    print()
    for entry in why:
        print(_paragraph(f"{entry['first']} with {entry['second']}", entry["reason"]))
