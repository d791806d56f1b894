"""From lark's children to our nodes: one callback per alternative of `grammar.lark`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, cast

from effc.diagnostics import did_you_mean
from effc.spec.arithmetic import Binary, Call, Expression, Name, Negate, Number, Share
from effc.spec.conditions import (
    ATTRIBUTES,
    KINDS,
    And,
    Comparison,
    Condition,
    Everything,
    Kind,
    NameIs,
    Not,
    Or,
    StageIs,
    Within,
)

if TYPE_CHECKING:
    from lark import Token

_RESERVED = ("and", "or", "in", "of")


@dataclass(eq=False)
class Refusal(Exception):
    """A mistake at `text[start:end]`; `effc.spec.language` adds the code and the place."""

    message: str
    start: int
    end: int
    help: str | None = None


class Builder:
    """The transformer that lark calls while it parses; each method returns a node."""

    def any_of(self, operands: list[Condition]) -> Or:
        return Or(tuple(operands))

    def all_of(self, operands: list[Condition]) -> And:
        return And(tuple(operands))

    def inverse(self, operands: list[Condition]) -> Not:
        return Not(operands[0])

    def everything(self, _: list[Token]) -> Everything:
        return Everything()

    def kind(self, tokens: list[Token]) -> Kind:
        word = str(tokens[0])
        if word not in KINDS:
            raise unknown_word(tokens[0])
        return Kind(word)

    def name_glob(self, tokens: list[Token]) -> NameIs:
        return NameIs(_unquoted(tokens[0]))

    def name_regex(self, tokens: list[Token]) -> NameIs:
        pattern = str(tokens[0])[1:-1]
        try:
            re.compile(pattern)
        except re.error as error:
            at = (tokens[0].start_pos or 0) + 1 + (error.pos or 0)
            message = f"not a regular expression: {error.msg}"
            help = "a backslash before a sign makes it an ordinary one"
            raise Refusal(message, at, at + 1, help) from None
        except (OverflowError, RecursionError):
            message = "the regular expression is too long"
            raise Refusal(message, *extent(tokens[0]), "split the rule in two") from None
        return NameIs(pattern, regex=True)

    def stage(self, tokens: list[Token]) -> StageIs:
        return StageIs(_unquoted(tokens[0]))

    def comparison(self, parts: tuple[Expression, Token, Expression]) -> Comparison:
        left, operator, right = parts
        return Comparison(str(operator), left, right)

    def within(self, parts: tuple[Expression, Expression, Expression]) -> Within:
        return Within(*parts)

    def binary(self, parts: tuple[Expression, Token, Expression]) -> Binary:
        left, operator, right = parts
        return Binary(str(operator), left, right)

    def minus(self, operands: list[Expression]) -> Expression:
        match operands[0]:
            case Number(value, unit) if value > 0:
                return Number(-value, unit)
            case Share(percent, of) if percent > 0:
                return Share(-percent, of)
            case operand:
                return Negate(operand)

    def number(self, tokens: list[Token]) -> Number:
        return Number(Decimal(tokens[0]), str(tokens[1]) if len(tokens) > 1 else "")

    def share(self, tokens: list[Token]) -> Share:
        return Share(Decimal(tokens[0]), str(tokens[1]))

    def attribute(self, tokens: list[Token]) -> Name:
        return Name(str(tokens[0]))

    def call(self, parts: list[Expression | Token]) -> Call:
        function, *arguments = parts
        if function == "ceil" and len(arguments) != 1:
            message = f"ceil takes one argument, found {len(arguments)}"
            raise Refusal(message, *extent(cast("Token", function)))
        return Call(str(function), cast("tuple[Expression, ...]", tuple(arguments)))


def _unquoted(token: Token) -> str:
    return re.sub(r"\\(.)", r"\1", str(token)[1:-1], flags=re.DOTALL)


def unknown_word(token: Token) -> Refusal:
    """A bare word that is no kind of site."""
    word = str(token)
    if word in _RESERVED:
        message = f"unexpected {word!r} in the selector"
        return Refusal(message, *extent(token), "expected a condition")
    if word == "kind":
        help = "a kind is a condition by itself: " + ", ".join(KINDS)
    else:
        help = did_you_mean(word, (*KINDS, *ATTRIBUTES, "all", "name", "stage"))
    return Refusal(f"unknown word {word!r} in the selector", *extent(token), help)


def extent(token: Token) -> tuple[int, int]:
    """Offsets of a token's first character and of the one after its last."""
    start = token.start_pos or 0
    return start, start + len(token)
