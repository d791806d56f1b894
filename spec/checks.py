"""The keys of `[target]`, `[quality]` and of every rule, and what each may hold.

A check takes the value as TOML or a dict gives it, the name of the key in words, and its place. It
returns the value as the schema holds it, or raises the error to report.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import cast

from effc.diagnostics import PolicyError, did_you_mean
from effc.spec.options import MethodInfo, fits, shown
from effc.spec.places import Place
from effc.spec.quantity import BYTES, Quantity
from effc.spec.schema import DTYPES
from effc.spec.selector import Selector

Check = Callable[[object, str, Place], object]
"""(value, the key in words, place of the value) -> the value of the schema's field."""

_DEVICE = re.compile(r"cpu|cuda(:sm[0-9]{2,3})?")


def wrong(
    label: str, expected: str, value: object, place: Place, names: Iterable[str] = ()
) -> PolicyError:
    """E0205: a key or option that holds something else than it takes."""
    help = (
        did_you_mean(value, names) if isinstance(value, str) and (names := tuple(names)) else None
    )
    message = f"{label} takes {expected}, found {shown(value)}"
    return PolicyError("E0205", message, where=place, help=help)


def integer(minimum: int) -> Check:
    """An integer from `minimum` on; `true` is not one."""

    def check(value: object, label: str, place: Place) -> int:
        if type(value) is int and fits(value) and value >= minimum:
            return value
        raise wrong(label, f"an integer >= {minimum}", value, place)

    return check


def number(minimum: float) -> Check:
    """A finite number from `minimum` on, as a float."""

    def check(value: object, label: str, place: Place) -> float:
        if type(value) in (int, float) and fits(value):
            result = float(cast("float", value))
            if result >= minimum:
                return result
        raise wrong(label, f"a number >= {minimum:g}", value, place)

    return check


def boolean(value: object, label: str, place: Place) -> bool:
    """`true` or `false`."""
    if not isinstance(value, bool):
        raise wrong(label, "true or false", value, place)
    return value


def text(value: object, label: str, place: Place) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value:
        raise wrong(label, "a text", value, place)
    return value


def one_of(choices: tuple[str, ...]) -> Check:
    """One of a few texts."""

    def check(value: object, label: str, place: Place) -> str:
        if not isinstance(value, str) or value not in choices:
            expected = "one of " + ", ".join(f'"{choice}"' for choice in choices)
            raise wrong(label, expected, value, place, choices)
        return value

    return check


def device(value: object, label: str, place: Place) -> str:
    """A target device; the architecture of a GPU may be named without having one."""
    if not isinstance(value, str) or not _DEVICE.fullmatch(value):
        expected = '"cpu", "cuda" or an architecture such as "cuda:sm90"'
        raise wrong(label, expected, value, place)
    return value


def memory(value: object, label: str, place: Place) -> Quantity:
    """A fixed, positive number of bytes."""
    expected = 'bytes with a unit, for example "3 GiB"'
    if not isinstance(value, str):
        raise wrong(label, expected, value, place)
    quantity = Quantity.parse(value, place)
    if quantity.dimension != BYTES or quantity.needs or quantity.evaluate() <= 0:
        raise wrong(label, expected, value, place)
    return quantity


def selector(value: object, label: str, place: Place) -> Selector:
    """A selector, written as a text."""
    if not isinstance(value, str):
        raise wrong(label, 'a selector such as "linear"', value, place)
    return Selector.parse(value, place)


def method(known: Mapping[str, MethodInfo], table: str) -> Check:
    """The name of a method registered for a table of rules."""

    def check(value: object, label: str, place: Place) -> str:
        name = text(value, label, place)
        if name not in known:
            message = f"unknown method {shown(name)} in [[{table}]]"
            raise PolicyError("E0204", message, where=place, help=did_you_mean(name, known))
        return name

    return check


SETTINGS: Mapping[str, Mapping[str, Check]] = {
    "target": {
        "device": device,
        "memory": memory,
        "context": integer(1),
        "batch": integer(1),
        "dtype": one_of(DTYPES),
        "threads": integer(1),
        "allow_reference": boolean,
    },
    "quality": {
        "data": text,
        "tokens": integer(1),
        "max_kl": number(0),
        "max_perplexity_ratio": number(0),
    },
}
"""The tables that appear once, by name: key -> check."""


def rule_checks(known: Mapping[str, MethodInfo], table: str) -> dict[str, Check]:
    """The keys that every rule has, whatever its method."""
    return {"where": selector, "method": method(known, table), "optional": boolean}
