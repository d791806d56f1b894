"""From the text of an expression to its syntax tree, and the place of every mistake.

The grammar is `grammar.lark`. lark is imported on first use: it costs more than all the rest of
reading a policy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from effc.diagnostics import PolicyError, Span, did_you_mean
from effc.spec.arithmetic import (
    UNITS,
    Binary,
    Call,
    Expression,
    Name,
    Negate,
    Number,
    Share,
    names,
    walk,
)
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
    expressions,
)
from effc.spec.places import Place, narrowed

if TYPE_CHECKING:
    from lark import Lark, Token
    from lark.exceptions import UnexpectedInput

Start = Literal["selector", "quantity"]

COUNTED = ("tokens", "layers", "heads", "weights")
"""What a quantity may take a share of."""

_CODES: dict[Start, str] = {"selector": "E0206", "quantity": "E0207"}
_EXAMPLES: dict[Start, str] = {
    "selector": 'write "all" to select every site',
    "quantity": 'for example "3 GiB" or "25% of tokens"',
}

# What deepens the tree. The limit keeps every walk over it far from Python's recursion limit.
_DEEPENING = re.compile(r"[-+*/(]|\bnot\b")
_DEEPENING_LIMIT = 200

_RESERVED = ("and", "or", "in", "of")

_TERMINALS = {
    "_AND": "'and'",
    "_OR": "'or'",
    "_IN": "'in'",
    "_OF": "'of'",
    "COMPARE": "a comparison",
    "PLUS": "'+'",
    "MINUS": "'-'",
    "STAR": "'*'",
    "SLASH": "'/'",
    "PERCENT": "'%'",
    "UNIT": "a unit",
    "ATTRIBUTE": "one of " + ", ".join(COUNTED),
    "STRING": "a quoted text",
    "REGEX": "a /regex/",
    "LPAR": "'('",
    "RPAR": "')'",
    "COMMA": "','",
    "__ANON_0": "'..'",
    "$END": "the end",
}


@dataclass(eq=False)
class _Refusal(Exception):
    """A mistake at `text[start:end]`; `parse_expression` adds the code and the place."""

    message: str
    start: int
    end: int
    help: str | None = None


def parse_selector(text: str, place: Place | None = None) -> Condition:
    """Read a selector; see `parse_expression`."""
    return cast("Condition", parse_expression("selector", text, place))


def parse_quantity(text: str, place: Place | None = None) -> Expression:
    """Read a quantity, without its dimension; see `parse_expression`."""
    return cast("Expression", parse_expression("quantity", text, place))


def parse_expression(start: Start, text: str, place: Place | None) -> Condition | Expression:
    """Read one expression of the policy language.

    Args:
        start: which of the two languages.
        text: the expression.
        place: where the string value stands that holds the expression; None for a text from code.

    Raises:
        PolicyError: E0206 for a selector, E0207 for a quantity.
    """
    try:
        tree = _parse(start, text)
        _check_names(start, text, tree)
    except _Refusal as mistake:
        if place is None:
            place = Span(f"<{start}>", 1, 1, len(text) + 2, f'"{text}"')
        where = narrowed(place, text, mistake.start, mistake.end)
        raise PolicyError(_CODES[start], mistake.message, where=where, help=mistake.help) from None
    return tree


def _parse(start: Start, text: str) -> Condition | Expression:
    if not text.strip():
        raise _Refusal(f"the {start} is empty", 0, len(text), _EXAMPLES[start])
    if len(_DEEPENING.findall(text)) > _DEEPENING_LIMIT:
        raise _Refusal(f"the {start} is too long", 0, len(text), "split the rule in two")
    parser = _parser()
    from lark.exceptions import UnexpectedInput

    try:
        # The builder's callbacks have replaced lark's trees by ours.
        return cast("Condition | Expression", parser.parse(text, start=start))
    except UnexpectedInput as error:
        raise _syntax_refusal(start, text, error) from None


@cache
def _parser() -> Lark:
    from lark import Lark

    grammar = Path(__file__).with_name("grammar.lark").read_text(encoding="utf-8")
    return Lark(
        grammar,
        parser="lalr",
        start=["selector", "quantity"],
        maybe_placeholders=False,
        transformer=_Builder(),
    )


def _syntax_refusal(start: Start, text: str, error: UnexpectedInput) -> _Refusal:
    from lark.exceptions import UnexpectedCharacters, UnexpectedToken

    if isinstance(error, UnexpectedCharacters):
        at = error.pos_in_stream
        hint = "compare with '=='" if text[at] == "=" else None
        return _Refusal(f"unexpected {text[at]!r} in the {start}", at, at + 1, hint)
    assert isinstance(error, UnexpectedToken)
    before = error.token_history[0] if error.token_history else None
    if before is not None and before.type == "WORD" and before not in KINDS:
        return _unknown_word(before)
    token = error.token
    if token.type == "$END":
        end = len(text.rstrip())
        return _Refusal(f"the {start} ends too early", end, end, _expected(error.accepts))
    word = str(token)
    if token.type == "WORD" and "UNIT" in error.accepts and start == "quantity":
        return _Refusal(f"unknown unit {word!r}", *_extent(token), _nearest_unit(word))
    if error.accepts == {"ATTRIBUTE"}:
        hint = did_you_mean(word, COUNTED if start == "quantity" else ATTRIBUTES)
    else:
        hint = _expected(error.accepts)
    return _Refusal(f"unexpected {word!r} in the {start}", *_extent(token), hint)


def _nearest_unit(word: str) -> str:
    # Wrong case is the usual slip, and letter case is all that tells some units apart.
    cased = next((unit for unit in UNITS if unit.lower() == word.lower()), word)
    return did_you_mean(cased, (*UNITS, "%"))


def _expected(accepted: Iterable[str]) -> str:
    accepted = set(accepted)
    if "WORD" in accepted:
        return "expected a condition"
    if "NUMBER" in accepted:
        return "expected a number"
    words = [word for terminal, word in _TERMINALS.items() if terminal in accepted]
    return "expected " + " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _unknown_word(token: Token) -> _Refusal:
    known = (*KINDS, *ATTRIBUTES, "all", "name", "stage")
    return _Refusal(
        f"unknown word {str(token)!r} in the selector",
        *_extent(token),
        did_you_mean(str(token), known),
    )


def _extent(token: Token) -> tuple[int, int]:
    start = token.start_pos or 0
    return start, start + len(token)


def _check_names(start: Start, text: str, tree: Condition | Expression) -> None:
    """Refuse names and units that only the other of the two languages knows."""
    if start == "quantity":
        parts, allowed = [cast("Expression", tree)], COUNTED
    else:
        parts, allowed = list(expressions(cast("Condition", tree))), ATTRIBUTES
    for name in (name for part in parts for name in names(part)):
        if name not in allowed:
            found = re.search(rf"\b{name}\b", text)
            at, end = found.span() if found else (0, len(text))
            message = f"{name!r} means nothing in a {start}"
            raise _Refusal(message, at, end, "allowed: " + ", ".join(allowed))
    if start == "selector":
        for node in (node for part in parts for node in walk(part)):
            if isinstance(node, Number) and node.unit:
                message = f"a selector compares plain numbers, not '{node}'"
                raise _Refusal(message, 0, len(text))


class _Builder:
    """One callback per alternative of the grammar, from lark's children to our nodes."""

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
        if word in _RESERVED:
            message = f"unexpected {word!r} in the selector"
            raise _Refusal(message, *_extent(tokens[0]), "expected a condition")
        if word not in KINDS:
            raise _unknown_word(tokens[0])
        return Kind(word)

    def name_glob(self, tokens: list[Token]) -> NameIs:
        return NameIs(_unquoted(tokens[0]))

    def name_regex(self, tokens: list[Token]) -> NameIs:
        pattern = str(tokens[0])[1:-1]
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            message = f"not a regular expression: {error}"
            raise _Refusal(message, *_extent(tokens[0])) from None
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
            raise _Refusal(message, *_extent(cast("Token", function)))
        return Call(str(function), cast("tuple[Expression, ...]", tuple(arguments)))


def _unquoted(token: Token) -> str:
    return re.sub(r"\\(.)", r"\1", str(token)[1:-1], flags=re.DOTALL)
