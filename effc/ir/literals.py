"""Arguments of nodes as JSON.

Numbers, truth values, null and lists stand for themselves; everything else is an object with one
field that says what it is:

    {"node": "linear_3"}   {"text": "plain"}     {"tuple": [...]}    {"slice": [0, null, 1]}
    {"float": "inf"}       {"dtype": "float16"}  {"device": "cpu"}   {"layout": "strided"}
    {"memory_format": "contiguous_format"}    {"stage": "then_1"}    {"predicate": "more_1"}
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx

from effc.diagnostics import VerifyError
from effc.ir import untrusted
from effc.ir.program import StageRef

MAX_DEPTH = 8

_DTYPE_NAMES = """
bool uint8 uint16 uint32 uint64 int8 int16 int32 int64 float16 bfloat16 float32 float64
complex64 complex128 float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz
"""
DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in _DTYPE_NAMES.split()}
MEMORY_FORMATS: dict[str, torch.memory_format] = {
    name: getattr(torch, name)
    for name in ("contiguous_format", "preserve_format", "channels_last", "channels_last_3d")
}
LAYOUTS: dict[str, torch.layout] = {"strided": torch.strided}
FLOATS: dict[str, float] = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}

_DEVICE = re.compile(r"cpu|cuda(:\d{1,3})?")


def dtype_name(dtype: torch.dtype) -> str:
    """The name of an element type, e.g. "float16"."""
    return str(dtype).removeprefix("torch.")


def read_dtype(data: object, where: str) -> torch.dtype:
    """The element type of a name.

    Raises:
        ArtifactError: E0603 when there is no such type.
    """
    return DTYPES[untrusted.choice(data, where, DTYPES)]


def write_literal(value: Any, where: str) -> object:
    """An argument of a node as JSON-ready data.

    Raises:
        VerifyError: E0406 when the value is none of the kinds that a graph may hold.
    """
    if value is None or type(value) in (bool, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, list | tuple):
        items = [write_literal(item, where) for item in value]
        return {"tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, slice):
        parts = (value.start, value.stop, value.step)
        return {"slice": [write_literal(part, where) for part in parts]}
    tag, content = _tagged(value, where)
    return {tag: content}


def _tagged(value: Any, where: str) -> tuple[str, str]:
    if isinstance(value, fx.Node):
        return "node", value.name
    if isinstance(value, str):
        return "text", value
    if isinstance(value, StageRef):
        return "predicate" if value.predicate else "stage", value.name
    for kind, tag in (
        (torch.dtype, "dtype"),
        (torch.device, "device"),
        (torch.layout, "layout"),
        (torch.memory_format, "memory_format"),
    ):
        if isinstance(value, kind):
            return tag, str(value).removeprefix("torch.")
    raise VerifyError(
        "E0406", f"a {type(value).__name__} is no literal of a program: {value!r}", where=where
    )


def read_literal(
    data: object, nodes: Mapping[str, fx.Node], where: str, depth: int = MAX_DEPTH
) -> Any:
    """The argument that JSON data stands for.

    Args:
        data: what `write_literal` made.
        nodes: the nodes that may be referred to: the earlier ones.
        where: the place, for messages.
        depth: how many levels of lists may follow.

    Raises:
        ArtifactError: E0603 for anything that `write_literal` does not write.
    """
    if data is None or type(data) is bool or (type(data) is float and math.isfinite(data)):
        return data
    if type(data) is int:
        return untrusted.integer(data, where)
    if depth == 0:
        untrusted.damaged("the argument is nested too deeply", where)
    if isinstance(data, list):
        items = untrusted.array(data, where)
        return [read_literal(item, nodes, where, depth - 1) for item in items]
    tag, content = _single_field(data, where)
    if tag == "node":
        return _node(content, nodes, where)
    if tag in ("tuple", "slice"):
        items = untrusted.array(content, where)
        return _sequence(tag, [read_literal(i, nodes, where, depth - 1) for i in items], where)
    return _SCALARS[tag](content, where)


def _single_field(data: object, where: str) -> tuple[str, object]:
    entry = untrusted.fields(data, where, (), ("node", "tuple", "slice", *_SCALARS))
    if len(entry) != 1:
        untrusted.damaged("an argument must have exactly one kind", where)
    return next(iter(entry.items()))


def _node(data: object, nodes: Mapping[str, fx.Node], where: str) -> fx.Node:
    name = untrusted.text(data, where)
    if name not in nodes:
        untrusted.damaged(f"no earlier node is called {name!r}", where)
    return nodes[name]


def _sequence(tag: str, items: list[Any], where: str) -> Any:
    if tag == "tuple":
        return tuple(items)
    if len(items) != 3 or not all(i is None or isinstance(i, int | fx.Node) for i in items):
        untrusted.damaged("a slice has three bounds", where)
    return slice(*items)


def _device(data: object, where: str) -> torch.device:
    name = untrusted.text(data, where)
    if not _DEVICE.fullmatch(name):
        untrusted.damaged(f"{name!r} is no device that a program may name", where)
    return torch.device(name)


def _stage(data: object, where: str) -> StageRef:
    return StageRef(untrusted.identifier(data, where))


def _predicate(data: object, where: str) -> StageRef:
    return StageRef(untrusted.identifier(data, where), predicate=True)


def _word(table: Mapping[str, Any]) -> Callable[[object, str], Any]:
    return lambda data, where: table[untrusted.choice(data, where, table)]


_SCALARS: dict[str, Callable[[object, str], Any]] = {
    "text": untrusted.text,
    "float": _word(FLOATS),
    "dtype": read_dtype,
    "device": _device,
    "layout": _word(LAYOUTS),
    "memory_format": _word(MEMORY_FORMATS),
    "stage": _stage,
    "predicate": _predicate,
}
