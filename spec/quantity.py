"""Quantities: how much, with units that are checked when the policy is read.

Quantity.parse("max(256, 25% of tokens)").evaluate({"tokens": 2000})  # 500.0
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from effc.diagnostics import PolicyError
from effc.spec.arithmetic import (
    UNITS,
    Binary,
    Call,
    Expression,
    Name,
    Negate,
    Number,
    Share,
    evaluate,
    names,
)
from effc.spec.language import parse_quantity
from effc.spec.places import Place

PLAIN = "a plain number"
BYTES = "bytes"
PERCENT = "a percentage"

_IN_WORDS = {
    "": 'a quantity, for example "max(256, 25% of tokens)"',
    BYTES: 'bytes with a unit, for example "3 GiB"',
    PERCENT: 'a percentage, for example "25%"',
    PLAIN: PLAIN,
}


@dataclass(frozen=True)
class Quantity:
    """An amount, possibly depending on what is counted in the model or in the prompt.

    Attributes:
        expression: the syntax tree.
        dimension: `PLAIN`, `BYTES`, `PERCENT`, or what is counted: "tokens", "layers", "heads",
            "weights".
    """

    expression: Expression
    dimension: str

    @classmethod
    def parse(cls, text: str, span: Place | None = None) -> Quantity:
        """Read a quantity.

        Args:
            text: e.g. `3 GiB` or `max(256, 25% of tokens)`.
            span: the place of the policy's value that holds the text.

        Raises:
            PolicyError: E0207: it cannot be read, or adds things of different kinds.
        """
        expression = parse_quantity(text, span)
        try:
            return cls(expression, _dimension(expression))
        except _Mismatch as mismatch:
            help = "bytes go with bytes, tokens with tokens; plain numbers scale them"
            raise PolicyError("E0207", str(mismatch), where=span, help=help) from None

    @classmethod
    def of(cls, number: float) -> Quantity:
        """A plain number, which must be finite."""
        # By way of the shortest text: 0.1 is a tenth, not the nearest binary fraction.
        return cls(Number(Decimal(repr(number + 0))), PLAIN)  # + 0: there is no -0 in the language

    def counts(self, dimension: str) -> bool:
        """Whether this can be an amount of `dimension`; of tokens, layers, ... a number can."""
        bare = self.dimension == PLAIN and dimension not in (BYTES, PERCENT)
        return not dimension or self.dimension == dimension or bare

    @property
    def needs(self) -> tuple[str, ...]:
        """The names that `evaluate` must be given."""
        return names(self.expression)

    def evaluate(self, values: Mapping[str, float] | None = None) -> float:
        """The amount as a number, bytes where `dimension` says so.

        Args:
            values: a number for each name in `needs`.

        Raises:
            PolicyError: E0207: a name has no value, or the divisor is zero.
        """
        known = {name: Fraction(value) for name, value in (values or {}).items()}
        missing = [name for name in self.needs if name not in known]
        if missing:
            raise PolicyError("E0207", f"the number of {missing[0]} in '{self}' is not known here")
        try:
            return float(evaluate(self.expression, known))
        except (ZeroDivisionError, OverflowError) as error:
            raise PolicyError("E0207", f"'{self}' has no value: {error}") from None

    def __str__(self) -> str:
        return str(self.expression)


def in_words(dimension: str) -> str:
    """What a value of this dimension is, with an example; any quantity for no dimension."""
    counted = f'a number of {dimension}, for example "25% of {dimension}"'
    return _IN_WORDS.get(dimension, counted)


class _Mismatch(Exception):
    """Two dimensions that do not go together; the text says which."""


def _dimension(expression: Expression) -> str:
    match expression:
        case Number(_, unit):
            return BYTES if unit in UNITS else PERCENT if unit == "%" else PLAIN
        case Share(_, name) | Name(name):
            return name
        case Negate(operand):
            return _dimension(operand)
        case Binary("*", left, right):
            return _times(expression, _dimension(left), _dimension(right))
        case Binary("/", left, right):
            return _over(expression, _dimension(left), _dimension(right))
        case Binary(_, left, right):
            return _same(expression, (left, right))
        case Call(_, arguments):
            return _same(expression, arguments)


def _same(whole: Expression, parts: tuple[Expression, ...]) -> str:
    """The one dimension of all parts; a plain number takes on the dimension of its neighbours."""
    dimensions = [_dimension(part) for part in parts]
    counted = [dimension for dimension in dimensions if dimension != PLAIN]
    if not counted:
        return PLAIN
    other = next((d for d in dimensions if d != counted[0] and d != PLAIN), None)
    if other is None and counted[0] in (PERCENT, BYTES) and PLAIN in dimensions:
        other = PLAIN  # "256 or 25%" of what? "3 GiB + 1" what?
    if other is not None:
        raise _Mismatch(f"'{whole}' mixes {counted[0]} and {other}")
    return counted[0]


def _times(whole: Expression, left: str, right: str) -> str:
    for scale in (PLAIN, PERCENT):
        if left == scale:
            return right
        if right == scale:
            return left
    raise _Mismatch(f"'{whole}' multiplies {left} by {right}")


def _over(whole: Expression, left: str, right: str) -> str:
    if right == PLAIN:
        return left
    if left == right:
        return PLAIN
    raise _Mismatch(f"'{whole}' divides {left} by {right}")
