"""`effc inspect`: what a policy could name in a model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from effc.cli.frame import DebugFlag, JsonFlag
from effc.cli.output import print_json, print_table
from effc.cost.text import bytes_text

_COLUMNS = ("kind", "shape", "params", "heads", "kv_heads", "width", "mask")


def inspect(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A Hugging Face folder.")],
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Show the sites of a model: where rules of a policy can act."""
    from effc.inspection import inspect_model

    facts = inspect_model(model)
    if json:
        print_json(facts)
        return
    for key, value in facts.items():
        if not isinstance(value, list | dict):
            shown = bytes_text(value) if key == "bytes" else value
            print(f"{key}: {shown}")
    print()
    print_table(("sites", "name", *_COLUMNS), [_row(group) for group in _alike(facts["sites"])])


def _alike(sites: list[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Sites that differ in nothing but their layer, together."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for site in sites:
        key = (_general(site), *(str(site.get(column)) for column in _COLUMNS))
        groups.setdefault(key, []).append(site)
    return list(groups.values())


def _general(site: Mapping[str, Any]) -> str:
    """The name with its layer index left open."""
    layer = site.get("layer")
    name = str(site["name"])
    return name if layer is None else re.sub(rf"(?<=\.){layer}(?=\.|$)", "*", name, count=1)


def _row(group: list[Mapping[str, Any]]) -> tuple[object, ...]:
    site = group[0]
    cells = [_cell(site.get(column)) for column in _COLUMNS]
    return (len(group), _general(site), *cells)


def _cell(value: object) -> object:
    if value is None or value == "" or value == []:
        return "-"
    if isinstance(value, list | tuple):
        return "x".join(map(str, value))
    return value
