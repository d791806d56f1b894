"""`effc methods`: what a policy may ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from effc.cli.frame import DebugFlag, JsonFlag
from effc.cli.output import print_json, print_table
from effc.diagnostics import EffcError, did_you_mean

if TYPE_CHECKING:
    from effc.spec.schema import MethodInfo, OptionInfo


def methods(
    name: Annotated[str | None, typer.Argument(help="Show one method with its options.")] = None,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """List the methods, or describe one."""
    from effc.passes.registry import method_infos

    infos = [info for table in method_infos().values() for info in table.values()]
    if name is not None:
        infos = _named(infos, name)
    if json:
        print_json({"methods": [_as_json(info) for info in infos]})
    elif name is None:
        print_table(("table", "method", "summary"), [(i.kind, i.name, i.summary) for i in infos])
    else:
        for info in infos:
            _describe(info)


def _named(infos: list[MethodInfo], name: str) -> list[MethodInfo]:
    found = [info for info in infos if info.name == name]
    if not found:
        names = {info.name for info in infos}
        raise EffcError("E0204", f"there is no method {name!r}", help=did_you_mean(name, names))
    return found


def _describe(info: MethodInfo) -> None:
    print(f"{info.name}: {info.summary}\ntable: [[{info.kind}]]")
    if info.paper:
        print(f"paper: {info.paper}")
    if info.options:
        rows = [(o.name, o.expected, _default(o), o.help) for o in info.options]
        print()
        print_table(("option", "takes", "default", "meaning"), rows)


def _default(option: OptionInfo) -> str:
    from effc.spec.schema import REQUIRED

    return "required" if option.default is REQUIRED else str(option.default)


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
