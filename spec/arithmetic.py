"""Arithmetic inside selectors and quantities: the syntax tree, its value, its canonical text.

Values are exact fractions, so `layer >= layers / 3 * 2` never depends on rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

UNITS: dict[str, int] = {
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
}
"""Bytes per unit."""

FUNCTIONS = ("min", "max", "ceil")

_SUM, _PRODUCT, _ATOM = 1, 2, 3


@dataclass(frozen=True)
class Number:
    """A literal, its sign included; `unit` is a key of `UNITS`, "%" or nothing."""

    value: Decimal
    unit: str = ""

    def __str__(self) -> str:
        gap = " " if self.unit in UNITS else ""
        return f"{_digits(self.value)}{gap}{self.unit}"


@dataclass(frozen=True)
class Share:
    """A percentage of something counted: `25% of tokens`."""

    percent: Decimal
    of: str

    def __str__(self) -> str:
        return f"{_digits(self.percent)}% of {self.of}"


@dataclass(frozen=True)
class Name:
    """Something counted (`tokens`) or an attribute of a site (`layer`)."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Negate:
    """Minus before anything but a positive literal, whose sign is part of the literal."""

    operand: Expression

    def __str__(self) -> str:
        return f"-{_grouped(self.operand, _ATOM)}"


@dataclass(frozen=True)
class Binary:
    """`left operator right`, with one of `+ - * /`."""

    operator: str
    left: Expression
    right: Expression

    def __str__(self) -> str:
        rank = _rank(self)
        # Operators group to the left, so an equal rank needs parentheses on the right only.
        return f"{_grouped(self.left, rank)} {self.operator} {_grouped(self.right, rank + 1)}"


@dataclass(frozen=True)
class Call:
    """`min` or `max` of one or more arguments, `ceil` of one."""

    function: str
    arguments: tuple[Expression, ...]

    def __str__(self) -> str:
        return f"{self.function}({', '.join(map(str, self.arguments))})"


Expression = Number | Share | Name | Negate | Binary | Call


def _digits(value: Decimal) -> str:
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _rank(expression: Expression) -> int:
    if isinstance(expression, Binary):
        return _SUM if expression.operator in "+-" else _PRODUCT
    return _ATOM


def _grouped(expression: Expression, rank: int) -> str:
    return str(expression) if _rank(expression) >= rank else f"({expression})"


def walk(expression: Expression) -> Iterator[Expression]:
    """The expression and everything below it, in reading order."""
    yield expression
    match expression:
        case Negate(operand):
            yield from walk(operand)
        case Binary(_, left, right):
            yield from walk(left)
            yield from walk(right)
        case Call(_, arguments):
            for argument in arguments:
                yield from walk(argument)
        case _:
            return


def names(expression: Expression) -> tuple[str, ...]:
    """The names whose values `evaluate` needs, each once, in reading order."""
    found: dict[str, None] = {}
    for node in walk(expression):
        if isinstance(node, Name):
            found[node.name] = None
        elif isinstance(node, Share):
            found[node.of] = None
    return tuple(found)


def evaluate(expression: Expression, values: Mapping[str, Fraction | int]) -> Fraction:
    """The exact value, in bytes where units are involved.

    Args:
        expression: what to evaluate.
        values: a number for each of `names(expression)`.

    Raises:
        ZeroDivisionError: a divisor is zero.
    """
    match expression:
        case Number(value, unit):
            return Fraction(value) * _scale(unit)
        case Share(percent, of):
            return Fraction(percent) / 100 * values[of]
        case Name(name):
            return Fraction(values[name])
        case Negate(operand):
            return -evaluate(operand, values)
        case Binary(operator, left, right):
            return _combine(operator, evaluate(left, values), evaluate(right, values))
        case Call(function, arguments):
            return _apply(function, [evaluate(argument, values) for argument in arguments])


def _scale(unit: str) -> Fraction:
    return Fraction(1, 100) if unit == "%" else Fraction(UNITS.get(unit, 1))


def _combine(operator: str, left: Fraction, right: Fraction) -> Fraction:
    match operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case _:
            return left / right


def _apply(function: str, arguments: list[Fraction]) -> Fraction:
    if function == "ceil":
        return Fraction(math.ceil(arguments[0]))
    return min(arguments) if function == "min" else max(arguments)
