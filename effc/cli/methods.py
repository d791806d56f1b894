"""`effc methods`: what a policy may ask for."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from effc.cli.frame import DebugFlag, JsonFlag
from effc.cli.output import print_json, print_table
from effc.diagnostics import EffcError, PassError, did_you_mean

if TYPE_CHECKING:
    from effc.spec.schema import MethodInfo, OptionInfo


def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="[METHOD]", help="Show one method with its options.")
    ] = None,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """List the methods, or describe one."""
    from effc.passes.registry import method_infos

    tables = method_infos()
    if name is None:
        infos = [info for table in tables.values() for info in _loadable(table)]
    else:
        infos = _named(tables, name)
    if json:
        print_json({"methods": [_as_json(info) for info in infos]})
    elif name is None:
        print_table(("table", "method", "summary"), [(i.kind, i.name, i.summary) for i in infos])
    else:
        for info in infos:
            _describe(info)


def _loadable(table: Mapping[str, MethodInfo]) -> Iterator[MethodInfo]:
    """The methods of a table; one that another package offers in vain costs a warning."""
    for name in table:
        try:
            yield table[name]
        except PassError as error:
            print(error.render(), file=sys.stderr)


def _named(tables: Mapping[str, Mapping[str, MethodInfo]], name: str) -> list[MethodInfo]:
    found = [table[name] for table in tables.values() if name in table]
    if not found:
        names = {known for table in tables.values() for known in table}
        raise EffcError("E0204", f"there is no method {name!r}", help=did_you_mean(name, names))
    return found


def _describe(info: MethodInfo) -> None:
    print(f"{info.name}: {info.summary}\npolicy: {_usage(info)}")
    if info.paper:
        print(f"paper: {info.paper}")
    if info.options:
        rows = [(o.name, o.expected, _default(o), o.help) for o in info.options]
        print()
        print_table(("option", "takes", "default", "meaning"), rows)


def _usage(info: MethodInfo) -> str:
    """How a policy names the method."""
    named = f'method = "{info.name}"'
    return f"[[kv]] store = {{ {named} }}" if info.kind == "store" else f"[[{info.kind}]] {named}"


def _default(option: OptionInfo) -> str:
    """The default as a policy writes it; a dash where the option is unset."""
    from effc.spec.schema import REQUIRED
    from effc.spec.wording import shown

    if option.default is REQUIRED:
        return "required"
    return "-" if option.default is None else shown(option.default)


def _as_json(info: MethodInfo) -> dict[str, object]:
    return {
        "name": info.name,
        "table": info.kind,
        "summary": info.summary,
        "paper": info.paper,
        "options": [
            {"name": o.name, "takes": o.expected, "default": _default(o), "help": o.help}
            for o in info.options
        ],
    }
