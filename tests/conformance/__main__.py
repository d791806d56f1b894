"""`python -m tests.conformance`: run cases and say what became of them."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatchcase

import torch

from tests.conformance.corpus import KINDS, Case, cases
from tests.conformance.expected import expected, surprises
from tests.conformance.outcome import CATEGORIES, PASS, Outcome, run


def main() -> int:
    """Run the chosen cases; 1 when something is not as the list says."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--kind", choices=KINDS, help="only this part of the corpus")
    parser.add_argument("--match", default="*", metavar="PATTERN", help="only these names")
    parser.add_argument("--summary", action="store_true", help="the tables of docs/onnx.md")
    parser.add_argument("--by-operator", action="store_true", help="failures by operator")
    options = parser.parse_args()
    torch.set_num_threads(1)
    outcomes = [run(case) for case in chosen(options.kind, options.match)]
    if options.summary:
        print(summary(outcomes))
    elif options.by_operator:
        print(by_operator(outcomes))
    else:
        print(table(outcomes))
    return 1 if surprises(outcomes) else 0


def chosen(kind: str | None, pattern: str) -> list[Case]:
    """The cases of one kind or of all, whose names fit the pattern."""
    every = (case for k in KINDS if kind in (None, k) for case in cases(k))
    return [case for case in every if fnmatchcase(case.name, pattern)]


def counts(outcomes: Iterable[Outcome]) -> str:
    """One line with the number of cases per category."""
    number = Counter(outcome.category for outcome in outcomes)
    return ", ".join(f"{number[category]} {category}" for category in CATEGORIES)


def table(outcomes: list[Outcome]) -> str:
    """What does not pass, line by line, and the counts."""
    lines = [
        f"{outcome.category:8} {outcome.case.kind}/{outcome.case.name}: {outcome.reason}"
        for outcome in outcomes
        if outcome.category != PASS
    ]
    return "\n".join([*lines, counts(outcomes)])


def by_operator(outcomes: list[Outcome]) -> str:
    """What does not pass, grouped by operator, most cases first, with one reason each."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.category != PASS:
            groups.setdefault((outcome.case.operator, outcome.category), []).append(outcome)
    lines = ["| operator | category | cases | first |", "|---|---|---|---|"]
    for (operator, category), members in sorted(groups.items(), key=lambda g: -len(g[1])):
        first = f"`{members[0].case.name}`: {members[0].reason.replace('|', '/')}"
        lines.append(f"| {operator} | {category} | {len(members)} | {first} |")
    return "\n".join([*lines, "", counts(outcomes)])


def summary(outcomes: list[Outcome]) -> str:
    """Counts per kind, and every group of cases that does not pass with its reason."""
    lines = ["| kind | cases | pass | refused | wrong | crash |", "|---|---|---|---|---|---|"]
    for kind in KINDS:
        members = [outcome.category for outcome in outcomes if outcome.case.kind == kind]
        numbers = " | ".join(str(members.count(category)) for category in CATEGORIES)
        lines.append(f"| {kind} | {len(members)} | {numbers} |")
    reasons = Counter(
        (outcome.category, expected(outcome.case)[1] or "not listed")
        for outcome in outcomes
        if outcome.category != PASS
    )
    lines += ["", "| what | cases | reason |", "|---|---|---|"]
    lines += [f"| {c} | {number} | {reason} |" for (c, reason), number in reasons.most_common()]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
