"""What the keys of the policy language may hold: the check of a value, and its JSON Schema.

The functions here make a `Key`. Its check takes the value as TOML or a dict gives it, the name of
the key in words, and its place; it returns the value as `effc.spec.schema` holds it, or raises the
error to report.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

from effc.diagnostics import PolicyError, did_you_mean
from effc.spec.places import Place
from effc.spec.quantity import BYTES, Quantity, in_words
from effc.spec.selector import Selector
from effc.spec.wording import fits, shown

MAX_INTEGER = 2**63 - 1
"""The largest integer of TOML."""

_DEVICE = r"cpu|cuda(:sm[0-9]{2,3})?"


@dataclass(frozen=True)
class Key:
    """A key of the policy language.

    Attributes:
        help: one line for editors.
        check: (value, the key in words, place of the value) -> the value of the schema's field.
        shape: what the value may be, as JSON Schema; wider than the check where that cannot say it.
    """

    help: str
    check: Callable[[object, str, Place], object]
    shape: dict[str, Any]


def wrong(
    label: str, expected: str, value: object, place: Place, names: Iterable[str] = ()
) -> PolicyError:
    """E0205: a key or option that holds something else than it takes."""
    known = tuple(names)
    help = did_you_mean(value, known) if isinstance(value, str) and known else None
    message = f"{label} takes {expected}, found {shown(value)}"
    return PolicyError("E0205", message, where=place, help=help)


def integer(help: str, minimum: int) -> Key:
    """An integer from `minimum` on; `true` is not one."""

    def check(value: object, label: str, place: Place) -> int:
        if type(value) is int and fits(value) and value >= minimum:
            return value
        raise wrong(label, f"an integer >= {minimum}", value, place)

    return Key(help, check, {"type": "integer", "minimum": minimum, "maximum": MAX_INTEGER})


def number(help: str, minimum: float, maximum: float | None = None) -> Key:
    """A finite number from `minimum` to `maximum`, as a float."""
    expected = f"a number >= {minimum:g}"
    if maximum is not None:
        expected = f"a number from {minimum:g} to {maximum:g}"

    def check(value: object, label: str, place: Place) -> float:
        if type(value) in (int, float) and fits(value):
            result = float(cast("float", value))
            if minimum <= result and (maximum is None or result <= maximum):
                return result
        raise wrong(label, expected, value, place)

    bounds = {"minimum": minimum} | ({} if maximum is None else {"maximum": maximum})
    return Key(help, check, {"type": "number"} | bounds)


def boolean(help: str) -> Key:
    """`true` or `false`."""

    def check(value: object, label: str, place: Place) -> bool:
        if not isinstance(value, bool):
            raise wrong(label, "true or false", value, place)
        return value

    return Key(help, check, {"type": "boolean"})


def text(help: str) -> Key:
    """A text that is not empty."""

    def check(value: object, label: str, place: Place) -> str:
        if not isinstance(value, str) or not value:
            raise wrong(label, "a text", value, place)
        return value

    return Key(help, check, {"type": "string", "minLength": 1})


def texts(help: str, example: str) -> Key:
    """A list of one or more texts, as a tuple."""

    def check(value: object, label: str, place: Place) -> tuple[str, ...]:
        items = cast("list[object]", value) if isinstance(value, list) else []
        if not items or not all(isinstance(item, str) and item for item in items):
            raise wrong(label, f"a list of texts such as {example}", value, place)
        return tuple(cast("list[str]", items))

    items = {"type": "string", "minLength": 1}
    return Key(help, check, {"type": "array", "minItems": 1, "items": items})


def one_of(help: str, choices: tuple[str, ...]) -> Key:
    """One of a few texts."""

    def check(value: object, label: str, place: Place) -> str:
        if not isinstance(value, str) or value not in choices:
            expected = "one of " + ", ".join(f'"{choice}"' for choice in choices)
            raise wrong(label, expected, value, place, choices)
        return value

    return Key(help, check, {"enum": list(choices)})


def device(help: str) -> Key:
    """A target device; the architecture of a GPU may be named without having one."""

    def check(value: object, label: str, place: Place) -> str:
        if not isinstance(value, str) or not re.fullmatch(_DEVICE, value):
            expected = '"cpu", "cuda" or an architecture such as "cuda:sm90"'
            message = f"{label} takes {expected}, found {shown(value)}"
            gpu = str(value).lower().startswith(("cuda", "gpu", "nvidia"))
            help = "did you mean 'cuda'?" if gpu else None
            raise PolicyError("E0205", message, where=place, help=help)
        return value

    examples = ["cpu", "cuda", "cuda:sm90"]
    return Key(help, check, {"type": "string", "pattern": f"^({_DEVICE})$", "examples": examples})


def memory(help: str) -> Key:
    """A fixed, positive number of bytes."""

    def check(value: object, label: str, place: Place) -> Quantity:
        if not isinstance(value, str):
            raise wrong(label, in_words(BYTES), value, place)
        quantity = Quantity.parse(value, place)
        if quantity.dimension != BYTES or quantity.needs or quantity.evaluate() <= 0:
            raise wrong(label, in_words(BYTES), value, place)
        return quantity

    return Key(help, check, {"type": "string", "minLength": 1, "examples": ["3 GiB"]})


def selector(help: str) -> Key:
    """A selector, written as a text."""

    def check(value: object, label: str, place: Place) -> Selector:
        if not isinstance(value, str):
            raise wrong(label, 'a selector such as "linear"', value, place)
        return Selector.parse(value, place)

    examples = ["all", "linear", "linear or embedding", "attention and layer >= 2"]
    return Key(help, check, {"type": "string", "minLength": 1, "examples": examples})
