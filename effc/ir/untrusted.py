"""Checked reading of data that nobody vouches for.

An artifact may come from a stranger, and Python text is later made from its graphs. Everything
read from one passes through the functions here: types are exact, texts are bounded and printable,
names are names, unknown fields are refused.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Collection
from pathlib import Path
from typing import NoReturn

from effc.diagnostics import ArtifactError, did_you_mean

MAX_TEXT = 1024
MAX_ITEMS = 1_000_000
INT64 = (-(2**63), 2**63 - 1)

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WEIGHT_NAME = re.compile(r"[A-Za-z0-9_./:#@~-]+")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")

# The names that a printed stage uses for itself.
RESERVED = frozenset({"weights", "torch", "operator", "math", "stages", "predicates"})


def damaged(message: str, where: str) -> NoReturn:
    """Refuse a piece of an artifact.

    Raises:
        ArtifactError: E0603, always.
    """
    help = "copy the artifact again, or compile the model again"
    raise ArtifactError("E0603", message, where=where, help=help)


def read_json(path: Path, limit: int) -> object:
    """The content of a JSON file.

    Args:
        path: the file.
        limit: bytes; a larger file is refused unread.

    Raises:
        ArtifactError: E0603 when the file is missing, unreadable, too large or not JSON.
    """
    try:
        if path.stat().st_size > limit:
            damaged(f"the file is larger than {limit} bytes", str(path))
        return parse_json(path.read_bytes(), str(path))
    except OSError as error:
        damaged(f"the file cannot be read: {error.strerror}", str(path))


def parse_json(content: bytes, where: str) -> object:
    """JSON text as data; NaN and Infinity are no JSON.

    Raises:
        ArtifactError: E0603 when the text is not JSON.
    """
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        damaged(f"the file is not valid JSON: {error}", where)


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def fields(
    data: object, where: str, required: Collection[str], optional: Collection[str] = ()
) -> dict[str, object]:
    """An object with all required and no unknown fields."""
    if not isinstance(data, dict):
        damaged(f"expected an object, found {_kind(data)}", where)
    for name in required:
        if name not in data:
            damaged(f"field {name!r} is missing", where)
    for name in data:
        if name not in required and name not in optional:
            hint = did_you_mean(str(name), [*required, *optional])
            damaged(f"unknown field {str(name)[:80]!r}; {hint}", where)
    return data


def mapping(data: object, where: str) -> dict[str, object]:
    """An object with any fields."""
    if not isinstance(data, dict) or len(data) > MAX_ITEMS:
        damaged(f"expected an object, found {_kind(data)}", where)
    return data


def array(data: object, where: str) -> list[object]:
    """A list of bounded length."""
    if not isinstance(data, list):
        damaged(f"expected a list, found {_kind(data)}", where)
    if len(data) > MAX_ITEMS:
        damaged(f"a list of {len(data)} items is too long", where)
    return data


def integer(data: object, where: str, low: int = INT64[0], high: int = INT64[1]) -> int:
    """A whole number between two bounds (inclusive); `true` is not a number."""
    if type(data) is not int:
        damaged(f"expected a whole number, found {_kind(data)}", where)
    if not low <= data <= high:
        damaged(f"the number lies outside {low}..{high}", where)
    return data


def boolean(data: object, where: str) -> bool:
    """True or false."""
    if type(data) is not bool:
        damaged(f"expected true or false, found {_kind(data)}", where)
    return data


def text(data: object, where: str, limit: int = MAX_TEXT) -> str:
    """A printable text on one line."""
    if not isinstance(data, str):
        damaged(f"expected a text, found {_kind(data)}", where)
    if len(data) > limit or not data.isprintable():
        damaged("the text is too long or not printable", where)
    return data


def printable(data: str) -> str:
    """A text as `text` accepts it: foreign characters replaced, the end cut off."""
    return "".join(c if c.isprintable() else " " for c in data)[:MAX_TEXT]


def choice(data: object, where: str, allowed: Collection[str]) -> str:
    """One of the allowed words."""
    word = text(data, where)
    if word not in allowed:
        damaged(f"unknown value {word!r}; {did_you_mean(word, allowed)}", where)
    return word


def identifier(data: object, where: str) -> str:
    """A name that may stand in Python text: no keyword, no dunder, nothing reserved."""
    name = text(data, where, limit=256)
    bad = keyword.iskeyword(name) or name.startswith("__") or name in RESERVED
    if bad or not _IDENTIFIER.fullmatch(name):
        damaged(f"{name!r} cannot be a name in a program", where)
    return name


def kernel_name(data: object, where: str) -> str:
    """The name of a kernel: small letters, digits and underscores."""
    name = text(data, where, limit=64)
    if not re.fullmatch(r"[a-z0-9_]+", name):
        damaged(f"{name!r} cannot be the name of a kernel", where)
    return name


def weight_name(data: object, where: str) -> str:
    """The name of a weight or result: no quotes, no blanks, no dunder parts."""
    name = text(data, where, limit=512)
    dunder = any(part.startswith("__") for part in name.split("."))
    if dunder or not _WEIGHT_NAME.fullmatch(name):
        damaged(f"{name!r} cannot be the name of a weight or result", where)
    return name


def file_name(data: object, where: str) -> str:
    """A relative path inside the artifact: plain names, never upwards, never hidden."""
    name = text(data, where, limit=256)
    if not all(_FILE_NAME.fullmatch(part) for part in name.split("/")):
        damaged(f"{name!r} cannot be the name of a file in an artifact", where)
    return name


def digest(data: object, where: str) -> str:
    """A SHA-256 in hexadecimal."""
    value = text(data, where)
    if not re.fullmatch(r"[0-9a-f]{64}", value):
        damaged(f"{value[:80]!r} is no SHA-256", where)
    return value


def _kind(data: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value"}
    return names.get(type(data), "nothing" if data is None else f"a {type(data).__name__}")
