"""Symbolic sizes as text.

A size that depends on the input is written in a small grammar, parsed here and nowhere else:

    sum     = product { ("+" | "-") product }
    product = atom { ("*" | "//") atom }
    atom    = integer | name | ("max" | "min") "(" sum "," sum ")" | "(" sum ")"

Every expression has one canonical text (single blanks, no superfluous parentheses), and only that
form is accepted from a file. A size outside the grammar, such as a count of nonzero elements, is
written as "?".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch

from effc.diagnostics import ArtifactError

UNKNOWN = "?"

MAX_LENGTH = 512
MAX_DEPTH = 32

_TOKEN = re.compile(r"\s*(?:(\d{1,18})|([A-Za-z_][A-Za-z0-9_]*)|(//|[-+*(),]))")
_RANK = {"+": 1, "-": 1, "*": 2, "//": 2}
_APPLY: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "//": lambda a, b: a // b,
    "max": max,
    "min": min,
}


@dataclass(frozen=True)
class Operation:
    """An operator of `+ - * // max min` applied to two expressions."""

    operator: str
    left: Expression
    right: Expression


Expression = int | str | Operation


def parse(text: str, where: str | None = None) -> Expression:
    """The expression that a text stands for.

    Args:
        text: the expression.
        where: its place in a file, for messages.

    Raises:
        ArtifactError: E0603 when the text is not in the grammar.
    """
    return _Parser(text, where).parse()


def render(expression: Expression) -> str:
    """The canonical text of an expression; `parse` gives the expression back."""
    if not isinstance(expression, Operation):
        return str(expression)
    operator, left, right = expression.operator, expression.left, expression.right
    if operator not in _RANK:
        return f"{operator}({render(left)}, {render(right)})"
    rank = _RANK[operator]
    return f"{_operand(left, rank)} {operator} {_operand(right, rank + 1)}"


def _operand(expression: Expression, rank: int) -> str:
    text = render(expression)
    loose = isinstance(expression, Operation) and _RANK.get(expression.operator, 3) < rank
    return f"({text})" if loose else text


def canonical(text: str, where: str | None = None) -> str:
    """The one text of the expression in `text`; arguments and errors as of `parse`."""
    return render(parse(text, where))


def evaluate(expression: Expression, sizes: Mapping[str, int]) -> int:
    """The value of an expression.

    Args:
        expression: what `parse` returned.
        sizes: the value of every name.

    Raises:
        ArtifactError: E0603 for an unknown name or a division by zero.
    """
    if isinstance(expression, int):
        return expression
    if isinstance(expression, str):
        if expression not in sizes:
            raise _unreadable(expression, f"nothing is called {expression!r}")
        return sizes[expression]
    left, right = evaluate(expression.left, sizes), evaluate(expression.right, sizes)
    if expression.operator == "//" and right == 0:
        raise _unreadable(render(expression), "it divides by zero")
    return _APPLY[expression.operator](left, right)


def of_value(size: int | torch.SymInt, names: Mapping[str, str]) -> int | str:
    """A size of a tensor as an integer or as canonical text.

    Args:
        size: the size.
        names: symbols of the shape environment -> names of the stage's sizes.
    """
    if not isinstance(size, torch.SymInt):
        return int(size)
    expression = _of_sympy(size.node.expr, names)
    if expression is None:
        return UNKNOWN
    text = expression if isinstance(expression, int) else render(expression)
    return text if isinstance(text, int) or len(text) <= MAX_LENGTH else UNKNOWN


class _Parser:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str, where: str | None) -> None:
        self.text = text
        self.where = where
        self.tokens = self._tokens()
        self.position = 0
        self.depth = 0

    def parse(self) -> Expression:
        expression = self._sum()
        if self._peek() is not None:
            raise self._unreadable(f"unexpected {self._peek()!r}")
        return expression

    def _tokens(self) -> list[str]:
        if len(self.text) > MAX_LENGTH:
            raise self._unreadable("it is too long")
        found: list[str] = []
        position, end = 0, len(self.text.rstrip())
        while position < end:
            match = _TOKEN.match(self.text, position)
            if match is None:
                raise self._unreadable(f"unexpected {self.text[position]!r}")
            found.append(match.group().strip())
            position = match.end()
        return found

    def _peek(self) -> str | None:
        return self.tokens[self.position] if self.position < len(self.tokens) else None

    def _next(self, expected: str | None = None) -> str:
        token = self._peek()
        if token is None or (expected is not None and token != expected):
            raise self._unreadable(f"expected {expected or 'a size'}, found {token or 'end'}")
        self.position += 1
        return token

    def _sum(self) -> Expression:
        return self._chain(("+", "-"), self._product)

    def _product(self) -> Expression:
        return self._chain(("*", "//"), self._atom)

    def _chain(self, operators: tuple[str, str], operand: Callable[[], Expression]) -> Expression:
        left = operand()
        while self._peek() in operators:
            left = Operation(self._next(), left, operand())
        return left

    def _atom(self) -> Expression:
        token = self._next()
        if token.isdigit():
            return int(token)
        if token in ("max", "min"):
            self._next("(")
            left = self._nested()
            self._next(",")
            right = self._nested()
            self._next(")")
            return Operation(token, left, right)
        if token == "(":
            inner = self._nested()
            self._next(")")
            return inner
        if token[0].isalpha() or token[0] == "_":
            return token
        raise self._unreadable(f"unexpected {token!r}")

    def _nested(self) -> Expression:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self._unreadable("it is nested too deeply")
        expression = self._sum()
        self.depth -= 1
        return expression

    def _unreadable(self, reason: str) -> ArtifactError:
        return _unreadable(self.text[:80], reason, self.where)


def _unreadable(text: str, reason: str, where: str | None = None) -> ArtifactError:
    return ArtifactError("E0603", f"the size {text!r} cannot be read: {reason}", where=where)


def _of_sympy(expr: Any, names: Mapping[str, str]) -> Expression | None:
    """A sympy expression in the grammar, None when it has no place there."""
    if expr.is_Integer:
        return int(expr) if expr >= 0 else Operation("-", 0, -int(expr))
    if expr.is_Symbol:
        return names.get(str(expr), str(expr))
    if expr.is_Add:
        return _sum_of(expr.args, names)
    if expr.is_Mul:
        return _product_of(expr, names)
    if expr.is_Pow and expr.exp.is_Integer and 0 < expr.exp <= 8:
        return _fold("*", [_of_sympy(expr.base, names)] * int(expr.exp))
    operands = [_of_sympy(arg, names) for arg in expr.args]
    match type(expr).__name__:
        case "FloorDiv" | "CleanDiv":
            return _fold("//", operands)
        case "Max" | "Min":
            return _fold(type(expr).__name__.lower(), operands)
        case "Mod" | "PythonMod":
            whole = _fold("*", [_fold("//", operands), operands[1]])
            return _fold("-", [operands[0], whole])
    return None


def _sum_of(terms: tuple[Any, ...], names: Mapping[str, str]) -> Expression | None:
    """Positive terms first, so that no sign is needed; names before numbers."""
    ordered = sorted(terms, key=lambda term: (bool(term.is_Integer), str(term)))
    plus = [t for t in ordered if not t.could_extract_minus_sign()]
    minus = [-t for t in ordered if t.could_extract_minus_sign()]
    start = _fold("+", [_of_sympy(term, names) for term in plus]) if plus else 0
    return _fold("-", [start, *(_of_sympy(term, names) for term in minus)])


def _product_of(expr: Any, names: Mapping[str, str]) -> Expression | None:
    if expr.could_extract_minus_sign():
        return _fold("-", [0, _of_sympy(-expr, names)])
    return _fold("*", [_of_sympy(factor, names) for factor in expr.args])


def _fold(operator: str, operands: list[Expression | None]) -> Expression | None:
    known = [operand for operand in operands if operand is not None]
    if not known or len(known) < len(operands):
        return None
    return reduce(lambda left, right: Operation(operator, left, right), known)
