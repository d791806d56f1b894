"""`effc diff`: what differs between two artifacts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from effc.cli.frame import DebugFlag, JsonFlag
from effc.cli.output import print_json, print_table
from effc.cost.text import bytes_text

_SHOWN = 8


def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="A folder that `effc compile` wrote.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    text: Annotated[
        bool, typer.Option("--text", help="Print how the programs differ, line by line.")
    ] = False,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Compare two artifacts: policy, versions, programs, weights, cache, figures."""
    from effc.difference import compare

    found = compare(a, b, text=text)
    if json:
        print_json(found)
    elif found["equal"]:
        print("no differences")
    else:
        _print(found)


def _print(found: Mapping[str, Any]) -> None:
    print(f"a: {found['a']}\nb: {found['b']}")
    if found["policy"]:
        print("\npolicy")
        print("\n".join(f"  {line}" for line in found["policy"]))
    for name, stage in found["stages"].items():
        _print_stage(name, stage)
    if found["weights"]:
        _print_weights(found["weights"])
    for section in ("cache", "kernels", "facts", "versions", "notes", "figures", "times"):
        if found[section]:
            print()
            rows = [_row(change) for change in found[section]]
            print_table((section, "a", "b"), rows)


def _print_stage(name: str, stage: Mapping[str, Any]) -> None:
    place = "" if stage["in"] == "both" else f", only in {stage['in']}"
    lines = stage["lines"]
    print(f"\nstage {name}{place}: {lines['a']} lines of a, {lines['b']} of b differ")
    if stage["operators"]:
        rows = [(c["what"], c["a"] or 0, c["b"] or 0) for c in stage["operators"]]
        print_table(("operator", "calls in a", "calls in b"), rows)
    if "text" in stage:
        print("\n".join(stage["text"]))


def _print_weights(weights: Mapping[str, Any]) -> None:
    sizes = weights["bytes"]
    print(f"\nweights: {bytes_text(sizes['a'])} in a, {bytes_text(sizes['b'])} in b")
    for side in ("a", "b"):
        alone = weights[f"only_{side}"]
        if alone:
            total = bytes_text(sum(tensor["bytes"] for tensor in alone))
            print(f"only in {side}: {_count(alone)}, {total}: {_names(alone)}")
    for what in ("shape", "dtype", "values"):
        changed = [tensor for tensor in weights["changed"] if tensor["what"] == what]
        if changed:
            first = "" if what == "values" else f" ({changed[0]['a']} and {changed[0]['b']})"
            print(f"other {what}: {_count(changed)}: {_names(changed)}{first}")


def _count(tensors: Sequence[object]) -> str:
    return f"{len(tensors)} {'tensor' if len(tensors) == 1 else 'tensors'}"


def _names(tensors: Iterable[Mapping[str, Any]]) -> str:
    """Names that differ in nothing but numbers once, with a star for them."""
    names = list(dict.fromkeys(re.sub(r"(?<=\.)\d+(?=\.)", "*", t["name"]) for t in tensors))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _row(change: Mapping[str, Any]) -> tuple[str, str, str]:
    what = str(change["what"])
    return what, _cell(change["a"], what), _cell(change["b"], what)


def _cell(value: object, what: str) -> str:
    if value is None:
        return "(none)"
    if what.startswith("bytes of") and isinstance(value, int):
        return bytes_text(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
