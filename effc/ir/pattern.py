"""Patterns over dataflow: what a rewrite rule looks for.

A pattern is a small tree of `Call`, `Var` and `Const`; matching walks the graph's edges from a
root, never names or modules. A failed match remembers how far it came and what differed first, so
that "why did my rule not fire?" has an answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

from torch import fx
from torch._ops import OpOverload


def op_name(node: fx.Node) -> str:
    """`"aten.mul.Tensor"` for a call of an operator, else an empty text (items, sizes, inputs)."""
    return str(node.target) if isinstance(node.target, OpOverload) else ""


@dataclass(frozen=True)
class Var:
    """Any node; the same name must bind the same node everywhere."""

    name: str


@dataclass(frozen=True)
class Const:
    """A literal, the same wherever its name occurs; `value` restricts it."""

    name: str
    value: Any = None


@dataclass(frozen=True)
class Call:
    """A call of one of `ops` whose leading arguments match.

    Attributes:
        ops: operator names such as "aten.mul.Tensor".
        args: patterns of the positional arguments; further ones are for the rule's check.
        keywords: named arguments that the rule's check reads; any other is a mismatch, for it
            changes what the operator means (`add(a, b, alpha=2)`).
        commutative: the first two arguments may be swapped.
        name: bind the node itself under this name.
    """

    ops: tuple[str, ...]
    args: tuple[Any, ...] = ()
    keywords: tuple[str, ...] = ()
    commutative: bool = False
    name: str | None = None


@dataclass(frozen=True)
class Cast:
    """`inner`, possibly converted to another element type."""

    inner: Any


@dataclass(frozen=True)
class ListOf:
    """A list argument whose items match."""

    items: tuple[Any, ...]


@dataclass
class Match:
    """A successful or failed match.

    Attributes:
        bound: nodes and literals by name.
        depth: number of calls that matched.
        reason: the first difference on the deepest attempt, empty on success.
        culprit: the node where it was found.
    """

    bound: dict[str, Any] = field(default_factory=dict)
    depth: int = 0
    reason: str = ""
    culprit: fx.Node | None = None

    def __bool__(self) -> bool:
        return not self.reason

    def __getitem__(self, name: str) -> Any:
        return self.bound[name]


CASTS = ("aten.to.dtype", "aten._to_copy.default", "aten.type_as.default", "aten.to.device")


def match(pattern: Any, root: fx.Node) -> Match:
    """Match a pattern against the expression that ends in `root`."""
    best = Match(reason="nothing matched", culprit=root)
    for bound, depth, reason, culprit in _attempts(pattern, root, {}, 0):
        if not reason:
            return Match(bound, depth)
        if depth >= best.depth:
            best = Match(bound, depth, reason, culprit)
    return best


def _attempts(pattern: Any, value: Any, bound: dict[str, Any], depth: int) -> Any:
    """Yield (bindings, depth, reason, culprit) of every way to match; reason "" is success."""
    if isinstance(pattern, Cast):
        yield from _cast(pattern, value, bound, depth)
    elif isinstance(pattern, Call):
        yield from _call(pattern, value, bound, depth)
    elif isinstance(pattern, ListOf):
        ok = isinstance(value, list | tuple) and len(value) == len(pattern.items)
        if ok:
            yield from _sequence(pattern.items, value, bound, depth)
        else:
            yield bound, depth, "the list has another length", None
    else:
        yield _leaf(pattern, value, bound, depth)


def _leaf(pattern: Any, value: Any, bound: dict[str, Any], depth: int) -> Any:
    culprit = value if isinstance(value, fx.Node) else None
    if isinstance(pattern, Var):
        if culprit is None:
            return bound, depth, f"{pattern.name} is the literal {value!r}", None
        if bound.get(pattern.name, value) is not value:
            return bound, depth, f"{pattern.name} is not the same value in both places", culprit
        return {**bound, pattern.name: value}, depth, "", None
    if isinstance(pattern, Const):
        if culprit is not None:
            return bound, depth, f"{pattern.name} is computed, not a constant", culprit
        if pattern.value is not None and value != pattern.value:
            return bound, depth, f"{pattern.name} is {value!r}, not {pattern.value!r}", None
        if bound.get(pattern.name, value) != value:
            return bound, depth, f"{pattern.name} is not the same value in both places", None
        return {**bound, pattern.name: value}, depth, "", None
    same = value == pattern
    return bound, depth, "" if same else f"found {value!r}, not {pattern!r}", culprit


def _cast(pattern: Cast, value: Any, bound: dict[str, Any], depth: int) -> Any:
    while isinstance(value, fx.Node) and op_name(value) in CASTS:
        value = value.args[0]
    yield from _attempts(pattern.inner, value, bound, depth)


def _call(pattern: Call, value: Any, bound: dict[str, Any], depth: int) -> Any:
    if not isinstance(value, fx.Node) or op_name(value) not in pattern.ops:
        found = op_name(value) or value.op if isinstance(value, fx.Node) else repr(value)
        wanted = " or ".join(pattern.ops)
        culprit = value if isinstance(value, fx.Node) else None
        yield bound, depth, f"found {found}, not {wanted}", culprit
        return
    if pattern.name is not None:
        bound = {**bound, pattern.name: value}
    if reason := _unlike(pattern, value):
        yield bound, depth, reason, value
        return
    orders = permutations(range(2)) if pattern.commutative else [(0, 1)]
    for order in orders:
        args = list(value.args)
        if pattern.commutative:
            args[:2] = [args[i] for i in order]
        yield from _sequence(pattern.args, args, bound, depth + 1)


def _unlike(pattern: Call, node: fx.Node) -> str:
    """Why a call with the right operator has the wrong arguments, before looking at them."""
    if len(node.args) < len(pattern.args):
        return f"{node.name} has {len(node.args)} arguments"
    unread = [key for key in node.kwargs if key not in pattern.keywords]
    return f"{node.name} sets {', '.join(unread)}" if unread else ""


def _sequence(patterns: Any, values: Any, bound: dict[str, Any], depth: int) -> Any:
    if not patterns:
        yield bound, depth, "", None
        return
    for now, reached, reason, culprit in _attempts(patterns[0], values[0], bound, depth):
        if reason:
            yield now, reached, reason, culprit
        else:
            yield from _sequence(patterns[1:], values[1:], now, reached)
