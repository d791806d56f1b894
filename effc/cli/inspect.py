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
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A Hugging Face folder or an ONNX file.")
    ],
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Show the sites of a model: where rules of a policy can act.

    Of an ONNX file also: who made it, its opsets, inputs, outputs, weights and operators, with the
    ones that effc cannot translate, and whether it compiles as a decoder with a cache, as a
    function, or not at all and why.
    """
    from effc.inspection import inspect_model

    facts = inspect_model(model)
    if json:
        print_json(facts)
        return
    _print_scalars(facts)
    if "file" in facts:
        _print_file(facts["file"])
    if facts["sites"] or "file" not in facts:
        print()
        rows = [_row(group) for group in _alike(facts["sites"])]
        print_table(("sites", "name", *_COLUMNS), rows)


def _print_scalars(facts: Mapping[str, Any]) -> None:
    for key, value in facts.items():
        if not isinstance(value, list | dict):
            shown = bytes_text(value) if key == "bytes" else value
            print(f"{key}: {shown}")


def _print_file(file: Mapping[str, Any]) -> None:
    """What stands in an ONNX file, table by table."""
    print("\nfile")
    _print_scalars({"  " + key: value for key, value in _scalars(file).items()})
    sections = (
        ("inputs", "type", "shape"),
        ("outputs", "type", "shape"),
        ("elements", "tensors", "parameters", "bytes"),
        ("external", "tensors", "bytes"),
        ("quantization", "bits", "block_size", "accuracy_level", "nodes"),
        ("operators", "domain", "count", "support"),
    )
    for name, *columns in sections:
        rows = [_file_row(row, columns) for row in file[name]]
        if rows:
            print()
            print_table((name, *columns), rows)


def _scalars(file: Mapping[str, Any]) -> dict[str, object]:
    """The facts that are one line each."""
    opsets = ", ".join(f"{domain} {version}" for domain, version in file["opsets"].items())
    cache = file["cache"]
    return {
        "producer": file["producer"],
        "exporter": f"{file['exporter']} ({file['sign']})",
        "format": f"IR version {file['ir_version']}",
        "opsets": opsets,
        "parameters": file["parameters"],
        "size": bytes_text(file["bytes"]),
        "functions": file["functions"],
        "cache": _cache_line(cache) if cache else "none among inputs and outputs",
    }


def _cache_line(cache: Mapping[str, list[str]]) -> str:
    parts = []
    for names, noun in ((cache["past"], "inputs"), (cache["present"], "outputs")):
        shown = f"{names[0]} ... {names[-1]}" if len(names) > 1 else ", ".join(names)
        parts.append(f"{len(names)} {noun}" + (f" ({shown})" if names else ""))
    return ", ".join(parts)


def _file_row(row: Mapping[str, Any], columns: list[str]) -> list[object]:
    first = next(iter(set(row) & {"name", "type", "file", "kind"} - set(columns)))
    shown = {**row, "domain": row.get("domain") or "ai.onnx"}
    if "bytes" in row:
        shown["bytes"] = bytes_text(row["bytes"])
    if row.get("shape") is not None:
        shown["shape"] = f"[{', '.join(map(str, row['shape']))}]"
    return [row[first], *(_cell(shown.get(column)) for column in columns)]


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
