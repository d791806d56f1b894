"""From the text of an expression to its syntax tree, and the place of every mistake.

The grammar is `grammar.lark`. lark is imported on first use: it costs more than all the rest of
reading a policy.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from effc.diagnostics import PolicyError, Span, did_you_mean
from effc.spec.arithmetic import FUNCTIONS, UNITS, Expression, Number, names, walk
from effc.spec.builder import Builder, Refusal, extent, unknown_word
from effc.spec.conditions import ATTRIBUTES, KINDS, Condition, expressions
from effc.spec.places import Place, narrowed
from effc.spec.wording import either

if TYPE_CHECKING:
    from lark import Lark, Token

Start = Literal["selector", "quantity"]

COUNTED = ("tokens", "layers", "heads", "weights")
"""What a quantity may take a share of."""

_CODES: dict[Start, str] = {"selector": "E0206", "quantity": "E0207"}
_NAMES: dict[Start, tuple[str, ...]] = {"selector": ATTRIBUTES, "quantity": COUNTED}
_EXAMPLES: dict[Start, str] = {
    "selector": 'write "all" to select every site',
    "quantity": 'for example "3 GiB" or "25% of tokens"',
}

# Signs of other languages, and how this one says it.
_INSTEAD = {
    "=": "compare with '=='",
    "&": "write 'and'",
    "|": "write 'or'",
    "!": "write 'not'",
    "[": "write a range as 2..5, both ends included",
}

# What deepens the tree. The limit keeps every walk over it far from Python's recursion limit.
_DEEPENING = re.compile(r"[-+*/(]|\bnot\b")
_DEEPENING_LIMIT = 200

_QUOTED = re.compile(r"""\s*("[^"]*"|'[^']*')""")

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
    "STRING": "a quoted text",
    "REGEX": "a /regex/",
    "LPAR": "'('",
    "RPAR": "')'",
    "COMMA": "','",
    "__ANON_0": "'..'",
    "$END": "the end",
}


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
    except Refusal as mistake:
        if place is None:
            place = Span(f"<{start}>", 1, 1, len(text) + 2, f'"{text}"')
        where = narrowed(place, text, mistake.start, mistake.end)
        raise PolicyError(_CODES[start], mistake.message, where=where, help=mistake.help) from None
    return tree


def _parse(start: Start, text: str) -> Condition | Expression:
    if not text.strip():
        raise Refusal(f"the {start} is empty", 0, len(text), _EXAMPLES[start])
    if len(_DEEPENING.findall(text)) > _DEEPENING_LIMIT:
        raise Refusal(f"the {start} is too long", 0, len(text), "split the rule in two")
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
        transformer=Builder(),
    )


def _syntax_refusal(start: Start, text: str, error: Any) -> Refusal:
    from lark.exceptions import UnexpectedCharacters

    if isinstance(error, UnexpectedCharacters):
        at = error.pos_in_stream
        hint = _INSTEAD.get(text[at])
        return Refusal(f"unexpected {text[at]!r} in the {start}", at, at + 1, hint)
    before, token = error.token_history[0] if error.token_history else None, error.token
    if before is not None and before.type == "WORD" and before not in KINDS:
        if token == "(":
            return _unknown_function(before, (*FUNCTIONS, "name", "stage"))
        return unknown_word(before)
    if token.type == "$END":
        end = len(text.rstrip())
        return Refusal(f"the {start} ends too early", end, end, _hint(start, error.accepts))
    word = str(token)
    if token.type == "WORD" and (refusal := _unexpected_word(start, text, token, error.accepts)):
        return refusal
    hint = _hint(start, error.accepts, word)
    if token.type == "COMPARE" and before is not None and before in ("name", "stage"):
        compared = _QUOTED.match(text, extent(token)[1])
        hint = _matched(str(before), word, compared[1] if compared else '"..."')
    return Refusal(f"unexpected {word!r} in the {start}", *extent(token), hint)


def _matched(word: str, operator: str, text: str) -> str:
    """How a comparison of a name is written."""
    negation = "not " if operator == "!=" else ""
    return f"a {word} is matched, not compared: write {negation}{word}({text})"


def _unexpected_word(start: Start, text: str, token: Token, accepts: set[str]) -> Refusal | None:
    """A word where the language knows some, and this is none of them."""
    word = str(token)
    if "UNIT" in accepts and start == "quantity":
        return Refusal(f"unknown unit {word!r}", *extent(token), _nearest_unit(word))
    if "NUMBER" not in accepts or "WORD" in accepts:
        return None
    if text[extent(token)[1] :].lstrip().startswith("("):
        return _unknown_function(token)
    meant = did_you_mean(word, (*_NAMES[start], *FUNCTIONS))
    return Refusal(f"unknown word {word!r} in the {start}", *extent(token), meant)


def _unknown_function(token: Token, known: tuple[str, ...] = FUNCTIONS) -> Refusal:
    word = str(token)
    return Refusal(f"unknown function {word!r}", *extent(token), did_you_mean(word, known))


def _nearest_unit(word: str) -> str:
    # Wrong case is the usual slip, and letter case is all that tells some units apart.
    cased = next((unit for unit in UNITS if unit.lower() == word.lower()), word)
    return did_you_mean(cased, (*UNITS, "%"))


def _hint(start: Start, accepted: set[str], word: str = "") -> str:
    """What could stand instead of `word`, given lark's names of the terminals."""
    if accepted == {"ATTRIBUTE"}:
        return did_you_mean(word, _NAMES[start])
    if "WORD" in accepted:
        return "expected a condition"
    if "NUMBER" in accepted:
        return "expected a number"
    words = [word for terminal, word in _TERMINALS.items() if terminal in accepted]
    return f"expected {either(words) or 'the end'}"


def _check_names(start: Start, text: str, tree: Condition | Expression) -> None:
    """Refuse names and units that only the other of the two languages knows."""
    if start == "quantity":
        parts = [cast("Expression", tree)]
    else:
        parts = list(expressions(cast("Condition", tree)))
    allowed = _NAMES[start]
    for name in (name for part in parts for name in names(part)):
        if name not in allowed:
            found = re.search(rf"\b{name}\b", text)
            at, end = found.span() if found else (0, len(text))
            message = f"{name!r} means nothing in a {start}"
            raise Refusal(message, at, end, "allowed: " + ", ".join(allowed))
    if start == "selector":
        for node in (node for part in parts for node in walk(part)):
            if isinstance(node, Number) and node.unit:
                found = re.search(rf"{node.value}\s*{node.unit}", text)
                message = f"a selector compares plain numbers, not '{node}'"
                help = "params counts single weights, the others count what they are called"
                raise Refusal(message, *(found.span() if found else (0, len(text))), help)
