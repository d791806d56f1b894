"""The types that options of methods may have, as annotations of dataclass fields.

An annotation is a union of alternatives. Each is the name of a type (`"int"`, `"Quantity"`, ...) or
the tuple of values of a `Literal`, empty for `None`, which no policy can state.
"""

from __future__ import annotations

import ast
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from effc.diagnostics import InternalError
from effc.spec.quantity import in_words
from effc.spec.wording import either, fits, shown

Alternative = str | tuple[object, ...]

QUANTITY = "Quantity"

_SCALARS: dict[str, tuple[str, type]] = {
    "bool": ("true or false", bool),
    "int": ("an integer", int),
    "float": ("a number", float),
    "str": ("a text", str),
}


def written(hint: object) -> str:
    """A type as one writes it: aliases resolved, `X | None` instead of `Optional[X]`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " | ".join(map(written, arguments))
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if hint is type(None):
        return "None"
    return hint.__name__ if isinstance(hint, type) else str(hint)


@cache
def alternatives(annotation: str) -> tuple[Alternative, ...]:
    """What a written type is made of.

    Raises:
        InternalError: it is not something that a policy can state.
    """
    try:
        return tuple(_members(ast.parse(annotation, mode="eval").body))
    except (SyntaxError, ValueError):
        message = f"a policy cannot state an option of type {annotation!r}"
        raise InternalError("E0901", message) from None


def _members(item: ast.expr) -> list[Alternative]:
    match item:
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _members(left) + _members(right)
        case ast.Name(id=name) if name in _SCALARS or name == QUANTITY:
            return [name]
        case ast.Constant(value=None):
            return [()]
        case ast.Subscript(value=ast.Name(id="Literal"), slice=values):
            literal: Any = ast.literal_eval(values)
            return [literal if isinstance(literal, tuple) else (literal,)]
        case _:
            raise ValueError


def accepts(item: Alternative, value: object) -> bool:
    """Whether the value, as TOML gives it, is of this type; quantities have to be read."""
    if isinstance(item, tuple):
        return any(same(literal, value) for literal in item)
    return item in _SCALARS and type(value) is _SCALARS[item][1] and fits(value)


def described(item: Alternative, dimension: str) -> str:
    """An alternative in words, empty for `None`; a quantity by its dimension."""
    if isinstance(item, tuple):
        return either([shown(literal) for literal in item])
    return in_words(dimension) if item == QUANTITY else _SCALARS[item][0]


def same(choice: object, value: object) -> bool:
    """Equality in a policy, where true is not 1."""
    return type(choice) is type(value) and choice == value
