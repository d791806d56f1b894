"""What goes together: pairs of methods, and methods with targets, each with its reason.

A *feature* is what a policy asks for, written "aspect:name": a method ("quantize:rtn"), a method
with one option that changes what it goes with ("quantize:rtn activations=int8"), a way to verify
drafts ("draft:exact"), a tier ("stream:host") or a device ("device:cuda"). Which pairs are legal is
data, `effc.spec.legality_table`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import combinations_with_replacement

from effc.diagnostics import PolicyError
from effc.spec.legality_table import FEATURES, PAIRS, Pair
from effc.spec.plan import Plan, Step
from effc.spec.schema import TargetSpec


def lookup(first: str, second: str) -> Pair:
    """The entry that decides about two features.

    Raises:
        KeyError: an aspect is unknown.
    """
    ranked = sorted(
        (
            (a + b, pair)
            for pair in PAIRS
            for left, right in ((pair.first, pair.second), (pair.second, pair.first))
            for a, b in ((_distance(first, left), _distance(second, right)),)
            if a is not None and b is not None
        ),
        key=lambda found: found[0],
    )
    if not ranked:
        raise KeyError(f"the legality table says nothing about {first} and {second}")
    return ranked[0][1]


def check_plan(plan: Plan, target: TargetSpec, also: Collection[str] = ()) -> None:
    """Refuse a plan whose methods exclude one another, or the target.

    Args:
        plan: its steps name the methods.
        target: its device is a feature too.
        also: further features that the policy asks for, e.g. "draft:loose".

    Raises:
        PolicyError: E0211 with both features, the reason, and the rule that asks for one.
    """
    places = {(match.table, match.rule): match.place for match in plan.matches}
    asked: dict[str, str | None] = {}
    for step in plan.steps:
        for feature in features(step):
            asked.setdefault(feature, places.get((step.table, step.rule)))
    asked |= dict.fromkeys(also)
    asked[f"device:{target.device.partition(':')[0]}"] = None
    check_pairs(asked, allow_reference=target.allow_reference)


def check_pairs(asked: Mapping[str, str | None], *, allow_reference: bool = False) -> None:
    """Refuse features that exclude one another.

    Args:
        asked: feature -> the place in the policy that asks for it, None where it has none.
        allow_reference: accept pairs that only lack a fast kernel.

    Raises:
        PolicyError: E0211.
    """
    for first, second in _distinct(list(asked)):
        pair = lookup(first, second)
        if pair.legal or (pair.reference and allow_reference):
            continue
        help = "leave one of the two out"
        if pair.reference:
            help += ", or set target.allow_reference = true to run the slow reference"
        raise PolicyError(
            "E0211",
            f"{first} and {second} do not go together: {pair.reason}",
            where=asked[first] or asked[second],
            help=help,
        )


def features(step: Step) -> tuple[str, ...]:
    """The features of a step: its method, and the options that have rows of their own."""
    method = f"{step.aspect}:{step.method}"
    options = (f"{method} {name}={value}" for name, value in step.options.items())
    return (method, *(option for option in options if option in FEATURES))


def matrix_rows(methods: Iterable[str] = ()) -> tuple[list[str], list[list[str]]]:
    """The table of all pairs.

    Args:
        methods: features beside those of this version, such as "kv:mine" of another package.

    Returns:
        Header and rows. Columns are numbered, rows carry number and name; a cell is "yes", "no",
        "slow" (only with `target.allow_reference`) or "-" for two targets.
    """
    names = _all(methods)
    header = ["", "feature", *(str(i + 1) for i in range(len(names)))]
    rows = [
        [str(i + 1), first, *(_cell(first, second) for second in names)]
        for i, first in enumerate(names)
    ]
    return header, rows


def reasons(methods: Iterable[str] = ()) -> list[tuple[str, str, str]]:
    """(feature, feature, reason) for every pair of the matrix, the refused ones first."""
    pairs = [
        (first, second, lookup(first, second))
        for first, second in combinations_with_replacement(_all(methods), 2)
        if not _both_devices(first, second)
    ]
    pairs.sort(key=lambda found: found[2].legal)
    return [
        (first, second, f"{'yes' if pair.legal else 'no'}: {pair.reason}")
        for first, second, pair in pairs
    ]


def _all(methods: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*FEATURES, *sorted(methods)]))


def _cell(first: str, second: str) -> str:
    if _both_devices(first, second):
        return "-"
    pair = lookup(first, second)
    return "yes" if pair.legal else "slow" if pair.reference else "no"


def _both_devices(first: str, second: str) -> bool:
    return first.startswith("device:") and second.startswith("device:")


def _distinct(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Pairs of features that are not two views of one method."""
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            if _method(first) != _method(second):
                yield first, second


def _method(feature: str) -> str:
    return feature.partition(" ")[0]


def _distance(feature: str, pattern: str) -> int | None:
    """How much more general a pattern is than a feature; None where it does not cover it."""
    general = (feature, _method(feature), f"{feature.partition(':')[0]}:*")
    return general.index(pattern) if pattern in general else None
