"""What a method lets a policy set, read from the method's dataclass, and the check of a value.

A method is a frozen dataclass; its fields are its options:

    @dataclass(frozen=True)
    class RoundToNearest:
        \"\"\"Round to nearest, one scale per group.\"\"\"

        name: ClassVar[str] = "rtn"
        kind: ClassVar[str] = "quantize"
        paper: ClassVar[str] = ""

        bits: Literal[4, 8] = field(default=4, metadata={"help": "bits per weight"})
        group: int | Literal["row"] = 32

        def __post_init__(self) -> None:
            if self.group != "row" and self.group < 16:
                raise OptionError("group", 'a power of two >= 16, or "row"', self.group)
"""

from __future__ import annotations

import ast
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from effc.diagnostics import InternalError, PolicyError


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED = _Required()
"""The default of an option that a policy must set."""

_SCALARS: dict[str, tuple[str, type]] = {
    "bool": ("true or false", bool),
    "int": ("an integer", int),
    "float": ("a number", float),
    "str": ("a text", str),
}


class OptionError(PolicyError):
    """Raised by a method's `__post_init__` for a value that its type does not exclude.

    Args:
        option: the name of the field.
        expected: what it takes, as the end of "option ... takes".
        found: the value.
        method: whose option it is, as far as the raiser knows.
    """

    def __init__(
        self, option: str, expected: str, found: object, method: str | None = None
    ) -> None:
        self.option = option
        self.expected = expected
        self.found = found
        owner = f' of method "{method}"' if method else ""
        super().__init__(
            "E0205", f"option {option!r}{owner} takes {expected}, found {shown(found)}"
        )


@dataclass(frozen=True)
class OptionInfo:
    """One option of a method.

    Attributes:
        name: the key in the policy.
        type: an annotation: `bool`, `int`, `float`, `str`, `None`, `Literal[...]`, joined by `|`.
        default: the value when the policy is silent, or `REQUIRED`.
        choices: the only values allowed; empty when the type says it all.
        help: one line for `effc methods`.
    """

    name: str
    type: str
    default: object = REQUIRED
    choices: tuple[object, ...] = ()
    help: str = ""

    def __post_init__(self) -> None:
        tuple(_alternatives(self.type))  # a type that cannot be checked is a defect of the method

    @property
    def expected(self) -> str:
        """What the option takes, in words: `an integer or "row"`."""
        if self.choices:
            return either([shown(choice) for choice in self.choices])
        parts = (_described(item) for item in _alternatives(self.type))
        return either([part for part in parts if part])

    @property
    def names(self) -> tuple[str, ...]:
        """The allowed texts, to find the one nearest to a misspelt value."""
        literals = (value for item in _alternatives(self.type) for value in _literals(item))
        return tuple(value for value in (*self.choices, *literals) if isinstance(value, str))

    def convert(self, value: object) -> object:
        """The value as the method takes it: an integer becomes a float where one is wanted.

        Raises:
            OptionError: a wrong type, or not one of the choices.
        """
        if self.choices:
            if any(_same(choice, value) for choice in self.choices):
                return value
        else:
            for item in _alternatives(self.type):
                if _accepts(item, value):
                    return value
            if "float" in self.type and type(value) is int and fits(value):
                return float(value)
        raise OptionError(self.name, self.expected, value)


@dataclass(frozen=True)
class MethodInfo:
    """One row of the method table, without loading the method.

    Attributes:
        name: as in the policy, e.g. "rtn".
        kind: the table it serves: "quantize", "kv", "tokens".
        options: what a rule may set.
        paper: a link, or empty.
        summary: one line.
        check: builds the method from options; raises PolicyError where it cannot be.
    """

    name: str
    kind: str
    options: tuple[OptionInfo, ...] = ()
    paper: str = ""
    summary: str = ""
    check: Callable[..., object] | None = None

    def option(self, name: str) -> OptionInfo | None:
        """The option of that name."""
        return next((option for option in self.options if option.name == name), None)


def method_info_from_dataclass(cls: type) -> MethodInfo:
    """Describe a method by its dataclass: its fields, and four class attributes.

    Args:
        cls: a dataclass whose `name`, `kind`, `paper` and `summary` are class attributes; the
            first line of its docstring stands in for a missing summary. Fields may carry
            `metadata={"help": ..., "choices": (...)}`.

    Raises:
        InternalError: a field's type is not one that a policy can state.
    """
    types = get_type_hints(cls)
    lines = (cls.__doc__ or "").strip().splitlines()
    return MethodInfo(
        name=getattr(cls, "name", cls.__name__.lower()),
        kind=getattr(cls, "kind", "quantize"),
        options=tuple(_option(field, types) for field in dataclasses.fields(cls) if field.init),
        paper=getattr(cls, "paper", ""),
        summary=getattr(cls, "summary", lines[0] if lines else ""),
        check=cls,
    )


def _option(field: dataclasses.Field[Any], types: Mapping[str, object]) -> OptionInfo:
    default: object = REQUIRED
    if field.default is not dataclasses.MISSING:
        default = field.default
    elif field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    metadata: Mapping[str, Any] = field.metadata
    return OptionInfo(
        name=field.name,
        type=_annotation(types[field.name]),
        default=default,
        choices=tuple(metadata.get("choices", ())),
        help=metadata.get("help", ""),
    )


def _annotation(hint: object) -> str:
    """A type as one writes it: aliases resolved, `X | None` instead of `Optional[X]`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " | ".join(map(_annotation, arguments))
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if hint is type(None):
        return "None"
    return hint.__name__ if isinstance(hint, type) else str(hint)


def _alternatives(annotation: str) -> Iterator[ast.expr]:
    """The members of a union, each checked to be something a policy can state."""
    try:
        pending = [ast.parse(annotation, mode="eval").body]
    except SyntaxError:
        raise _unsupported(annotation) from None
    while pending:
        item = pending.pop()
        match item:
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                pending += [right, left]
            case ast.Name(id=name) if name in _SCALARS:
                yield item
            case ast.Constant(value=None) | ast.Subscript(value=ast.Name(id="Literal")):
                yield item
            case _:
                raise _unsupported(annotation)


def _unsupported(annotation: str) -> InternalError:
    return InternalError("E0901", f"a policy cannot state an option of type {annotation!r}")


def _literals(item: ast.expr) -> tuple[object, ...]:
    if not isinstance(item, ast.Subscript):
        return ()
    value: Any = ast.literal_eval(item.slice)
    return value if isinstance(value, tuple) else (value,)


def _accepts(item: ast.expr, value: object) -> bool:
    if isinstance(item, ast.Name):
        return type(value) is _SCALARS[item.id][1] and fits(value)
    return any(_same(literal, value) for literal in _literals(item))


def _described(item: ast.expr) -> str:
    if isinstance(item, ast.Name):
        return _SCALARS[item.id][0]
    return either([shown(literal) for literal in _literals(item)])


def _same(choice: object, value: object) -> bool:
    # True == 1 in Python, not in a policy.
    return type(choice) is type(value) and choice == value


def either(parts: list[str]) -> str:
    """The parts as alternatives: `a, b or c`."""
    return " or ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def fits(value: object) -> bool:
    """Whether a number is finite and, as TOML demands of integers, has at most 64 bits."""
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return not isinstance(value, float) or math.isfinite(value)


def shown(value: object) -> str:
    """A value as a policy writes it, long ones cut."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= 60 else f'"{value[:57]}..."'
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, int) and not fits(value):
        return "a number of more than 64 bits"
    return str(value)
