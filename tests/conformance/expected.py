"""The checked-in list of what does not pass, with the reason."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from tests.conformance.corpus import Case
from tests.conformance.outcome import CATEGORIES, CRASH, PASS, Outcome

FILE = Path(__file__).with_name("expected.toml")


@dataclass(frozen=True)
class Entry:
    """Some cases that do not pass.

    Attributes:
        category: what becomes of them: "refused" or "wrong"; nothing may crash.
        pattern: one name, or a pattern of names as in a shell.
        reason: why.
    """

    category: str
    pattern: str
    reason: str

    def fits(self, case: Case) -> bool:
        """Whether the entry is about a case."""
        return fnmatchcase(case.name, self.pattern)


@cache
def entries() -> tuple[Entry, ...]:
    """The whole list."""
    data = tomllib.loads(FILE.read_text(encoding="utf-8"))
    assert data.keys() <= set(CATEGORIES) - {PASS, CRASH}, "only refusals and wrong answers"
    return tuple(
        Entry(category, pattern, group["reason"])
        for category, groups in data.items()
        for group in groups
        for pattern in group["cases"]
    )


def expected(case: Case) -> tuple[str, str]:
    """Category and reason that the list has for a case."""
    for entry in entries():
        if entry.fits(case):
            return entry.category, entry.reason
    return PASS, ""


def surprises(outcomes: Iterable[Outcome]) -> list[str]:
    """What is not as the list says, as texts."""
    found = []
    for outcome in outcomes:
        category, _ = expected(outcome.case)
        if outcome.category != category:
            what = f"{outcome.case.kind}/{outcome.case.name}: {outcome.category}, not {category}"
            found.append(f"{what}: {outcome.reason}" if outcome.reason else what)
    return found
