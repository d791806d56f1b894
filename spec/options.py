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

An amount with a unit is a `Quantity`: `budget: Quantity = amount("25% of tokens", "tokens")`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, get_type_hints

from effc.diagnostics import PolicyError
from effc.spec.annotations import (
    QUANTITY,
    Alternative,
    accepts,
    alternatives,
    described,
    same,
    written,
)
from effc.spec.places import Place
from effc.spec.quantity import Quantity
from effc.spec.wording import either, fits, shown


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED = _Required()
"""The default of an option that a policy must set."""


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
        type: an annotation: `bool`, `int`, `float`, `str`, `Quantity`, `None`, `Literal[...]`,
            joined by `|`.
        default: the value when the policy is silent, or `REQUIRED`; a quantity as its text.
        choices: the only values allowed; empty when the type says it all.
        help: one line for `effc methods`.
        dimension: what a quantity counts, see `Quantity.dimension`; empty allows everything.
    """

    name: str
    type: str
    default: object = REQUIRED
    choices: tuple[object, ...] = ()
    help: str = ""
    dimension: str = ""

    def __post_init__(self) -> None:
        alternatives(self.type)  # a type that cannot be checked is a defect of the method

    @property
    def alternatives(self) -> tuple[Alternative, ...]:
        """What the type is made of."""
        return alternatives(self.type)

    @property
    def expected(self) -> str:
        """What the option takes, in words: `an integer or "row"`."""
        if self.choices:
            return either([shown(choice) for choice in self.choices])
        parts = (described(item, self.dimension) for item in self.alternatives)
        return either([part for part in parts if part])

    @property
    def names(self) -> tuple[str, ...]:
        """The allowed texts, to find the one nearest to a misspelt value."""
        literals = (v for item in self.alternatives if isinstance(item, tuple) for v in item)
        return tuple(value for value in (*self.choices, *literals) if isinstance(value, str))

    def convert(self, value: object, place: Place | None = None) -> object:
        """The value as the method takes it: a float where one is wanted, a text as a quantity.

        Args:
            value: as TOML or a dict gives it.
            place: where it stands.

        Raises:
            OptionError: a wrong type, a wrong dimension, or not one of the choices.
            PolicyError: E0207: a quantity that cannot be read, at its place inside the text.
        """
        if self.choices:
            if any(same(choice, value) for choice in self.choices):
                return value
        elif any(accepts(item, value) for item in self.alternatives):
            return value
        elif "float" in self.alternatives and type(value) is int and fits(value):
            return float(value)
        elif QUANTITY in self.alternatives and isinstance(value, int | float | str):
            return self._quantity(value, place)
        raise OptionError(self.name, self.expected, value)

    def _quantity(self, value: float | str, place: Place | None) -> Quantity:
        if isinstance(value, str):
            quantity = Quantity.parse(value, place)
        elif isinstance(value, bool) or not fits(value):
            raise OptionError(self.name, self.expected, value)
        else:
            quantity = Quantity.of(value)
        if not quantity.counts(self.dimension):
            raise OptionError(self.name, self.expected, value)
        return quantity


@dataclass(frozen=True)
class MethodInfo:
    """One row of the method table, without loading the method.

    Attributes:
        name: as in the policy, e.g. "rtn".
        kind: the aspect it serves: "quantize", "kv", "store", "tokens", "draft" or "stream".
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


def amount(default: float | str, dimension: str, help: str = "") -> Any:
    """A field of a method that holds a `Quantity`, with its default as a policy writes it.

    The default is read when a method is made without that option, so that describing a method
    costs nothing.

    Args:
        default: e.g. `"25% of tokens"` or 64.
        dimension: what is counted, see `Quantity.dimension`; empty allows everything.
        help: one line for `effc methods`.
    """
    read = Quantity.parse if isinstance(default, str) else Quantity.of
    metadata = {"default": default, "dimension": dimension, "help": help}
    return field(default_factory=partial(read, default), metadata=metadata)


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
    metadata: Mapping[str, Any] = field.metadata
    default: object = REQUIRED
    if "default" in metadata:
        default = metadata["default"]
    elif field.default is not dataclasses.MISSING:
        default = field.default
    elif field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    return OptionInfo(
        name=field.name,
        type=written(types[field.name]),
        default=default,
        choices=tuple(metadata.get("choices", ())),
        help=metadata.get("help", ""),
        dimension=metadata.get("dimension", ""),
    )
