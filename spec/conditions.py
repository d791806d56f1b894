"""The conditions a selector is made of, and how each one explains a refusal.

`check` says whether a condition holds at a site. Where it does not, it says what was found and what
was asked for, so that a rule that matched nothing can name its nearest miss.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Protocol

from effc.spec.arithmetic import Binary, Expression, Name, Number, evaluate, names

KINDS: dict[str, frozenset[str]] = {
    "linear": frozenset({"linear", "experts"}),
    "experts": frozenset({"experts"}),
    "embedding": frozenset({"embedding"}),
    "attention": frozenset({"attention"}),
    "conv": frozenset({"conv"}),
    "norm": frozenset({"norm"}),
}
"""Each kind word of the language, and the kinds of site that it selects."""

ATTRIBUTES = ("layer", "layers", "heads", "kv_heads", "width", "params")
"""The numbers of a site that a selector may compare."""

_COMPARE: dict[str, Callable[[Fraction, Fraction], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Site(Protocol):
    """What a selector reads of a place in the model; None where the site has no such number."""

    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def stage(self) -> str: ...
    @property
    def layer(self) -> int | None: ...
    @property
    def layers(self) -> int | None: ...
    @property
    def heads(self) -> int | None: ...
    @property
    def kv_heads(self) -> int | None: ...
    @property
    def width(self) -> int | None: ...
    @property
    def params(self) -> int | None: ...


@dataclass(frozen=True)
class Outcome:
    """One condition at one site.

    Attributes:
        ok: whether the condition holds.
        satisfied: how many single conditions hold, to rank near misses.
        found: what the site has instead, e.g. "layer is 1"; empty when `ok`.
        asked: the condition that failed, in the words of the policy; empty when `ok`.
    """

    ok: bool
    satisfied: int
    found: str = ""
    asked: str = ""


def _outcome(ok: bool, found: str, asked: object) -> Outcome:
    return Outcome(True, 1) if ok else Outcome(False, 0, found, str(asked))


@dataclass(frozen=True)
class Everything:
    """`all`: every site."""

    def check(self, site: Site) -> Outcome:
        return Outcome(True, 1)

    def __str__(self) -> str:
        return "all"


@dataclass(frozen=True)
class Kind:
    """A bare word: sites of that kind (`linear` selects experts too)."""

    word: str

    def check(self, site: Site) -> Outcome:
        return _outcome(site.kind in KINDS[self.word], f"kind is {site.kind}", self)

    def __str__(self) -> str:
        return self.word


@dataclass(frozen=True)
class NameIs:
    """`name("glob")` over the whole module path, or `name(/regex/)` anywhere in it."""

    pattern: str
    regex: bool = False

    def check(self, site: Site) -> Outcome:
        if self.regex:
            ok = re.search(self.pattern, site.name) is not None
        else:
            ok = fnmatchcase(site.name, self.pattern)
        return _outcome(ok, f"name is {quoted(site.name)}", self)

    def __str__(self) -> str:
        return f"name(/{self.pattern}/)" if self.regex else f"name({quoted(self.pattern)})"


@dataclass(frozen=True)
class StageIs:
    """`stage("decode")`: sites of that stage."""

    stage: str

    def check(self, site: Site) -> Outcome:
        return _outcome(site.stage == self.stage, f"stage is {quoted(site.stage)}", self)

    def __str__(self) -> str:
        return f"stage({quoted(self.stage)})"


@dataclass(frozen=True)
class Comparison:
    """`left operator right` between two arithmetic expressions."""

    operator: str
    left: Expression
    right: Expression

    def check(self, site: Site) -> Outcome:
        left, right = _indexed(self.left, self.right), _indexed(self.right, self.left)
        return _numeric(site, str(self), _COMPARE[self.operator], left, right)

    def __str__(self) -> str:
        return f"{self.left} {self.operator} {self.right}"


@dataclass(frozen=True)
class Within:
    """`value in low..high`, both ends included."""

    value: Expression
    low: Expression
    high: Expression

    def check(self, site: Site) -> Outcome:
        low, high = _indexed(self.low, self.value), _indexed(self.high, self.value)
        return _numeric(site, str(self), _between, self.value, low, high)

    def __str__(self) -> str:
        return f"{self.value} in {self.low}..{self.high}"


@dataclass(frozen=True)
class Not:
    """`not operand`."""

    operand: Condition

    def check(self, site: Site) -> Outcome:
        return _outcome(not self.operand.check(site).ok, f"{self.operand} holds", self)

    def __str__(self) -> str:
        compound = isinstance(self.operand, And | Or)
        return f"not ({self.operand})" if compound else f"not {self.operand}"


@dataclass(frozen=True)
class And:
    """All operands; the first that fails is the reason."""

    operands: tuple[Condition, ...]

    def check(self, site: Site) -> Outcome:
        outcomes = [operand.check(site) for operand in self.operands]
        satisfied = sum(outcome.satisfied for outcome in outcomes)
        failed = next((outcome for outcome in outcomes if not outcome.ok), None)
        if failed is None:
            return Outcome(True, satisfied)
        return Outcome(False, satisfied, failed.found, failed.asked)

    def __str__(self) -> str:
        return " and ".join(
            f"({operand})" if isinstance(operand, And | Or) else str(operand)
            for operand in self.operands
        )


@dataclass(frozen=True)
class Or:
    """At least one operand; the alternative that came closest is the reason."""

    operands: tuple[Condition, ...]

    def check(self, site: Site) -> Outcome:
        outcomes = [operand.check(site) for operand in self.operands]
        # `ok` first: an alternative that holds beats one with more conditions that fails.
        best = max(outcomes, key=lambda outcome: (outcome.ok, outcome.satisfied))
        if best.ok:
            return best
        # "kind is norm, the rule asks for linear or embedding" needs both alternatives.
        asked = dict.fromkeys(o.asked for o in outcomes if o.found == best.found)
        return Outcome(False, best.satisfied, best.found, " or ".join(asked))

    def __str__(self) -> str:
        return " or ".join(
            f"({operand})" if isinstance(operand, Or) else str(operand) for operand in self.operands
        )


Condition = Everything | Kind | NameIs | StageIs | Comparison | Within | Not | And | Or


def expressions(condition: Condition) -> Iterator[Expression]:
    """The arithmetic expressions of a condition and of everything below it."""
    match condition:
        case Comparison(_, left, right):
            yield from (left, right)
        case Within(value, low, high):
            yield from (value, low, high)
        case Not(operand):
            yield from expressions(operand)
        case And(operands) | Or(operands):
            for operand in operands:
                yield from expressions(operand)
        case _:
            return


def names_asked(condition: Condition) -> tuple[str, ...]:
    """The patterns of all `name(...)` that a site should match."""
    match condition:
        case NameIs(pattern):
            return (pattern,)
        case And(operands) | Or(operands):
            return tuple(name for operand in operands for name in names_asked(operand))
        case _:
            return ()


def quoted(text: str) -> str:
    """The text as a string literal of the language."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _between(value: Fraction, low: Fraction, high: Fraction) -> bool:
    return low <= value <= high


def _indexed(bound: Expression, value: Expression) -> Expression:
    """`-1` beside `layer` is the last layer: a negative literal counts from the end."""
    if isinstance(bound, Number) and bound.value < 0 and value == Name("layer"):
        return Binary("+", Name("layers"), bound)
    return bound


def _numeric(site: Site, asked: str, holds: Callable[..., bool], *operands: Expression) -> Outcome:
    """Compare the operands' values; a number that the site lacks makes the condition false."""
    values: dict[str, int] = {}
    for name in (name for operand in operands for name in names(operand)):
        value = getattr(site, name, None)
        if value is None:
            return Outcome(False, 0, f"the site has no {name}", asked)
        values[name] = value
    found = " and ".join(f"{name} is {value}" for name, value in values.items())
    try:
        ok = holds(*(evaluate(operand, values) for operand in operands))
    except ZeroDivisionError:
        return Outcome(False, 0, f"{found or asked} and that divides by zero", asked)
    return _outcome(ok, found or f"{asked} is false", asked)
