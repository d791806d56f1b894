"""Selectors: which sites of a model a rule means, and why a site was left out.

Selector.parse("linear and layer >= layers / 2").matches(site)
# Match(ok=False, reason="layer is 1 and layers is 8, the rule asks for layer >= layers / 2")
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TypeVar

from effc.spec.conditions import Condition, Outcome, Site, names_asked
from effc.spec.language import parse_selector
from effc.spec.places import Place

AnySite = TypeVar("AnySite", bound=Site)


@dataclass(frozen=True)
class Match:
    """Whether a selector means a site; true in a condition when it does.

    Attributes:
        ok: the answer.
        reason: the first condition that failed, in words; empty when `ok`.
    """

    ok: bool
    reason: str = ""

    def __bool__(self) -> bool:
        return self.ok


@dataclass(frozen=True)
class Selector:
    """A parsed selector. Two are equal when they are written the same but for spacing.

    Attributes:
        condition: the syntax tree.
    """

    condition: Condition

    @classmethod
    def parse(cls, text: str, span: Place | None = None) -> Selector:
        """Read a selector.

        Args:
            text: e.g. `linear and layer in 2..-3`.
            span: the place of the policy's value that holds the text.

        Raises:
            PolicyError: E0206.
        """
        return cls(parse_selector(text, span))

    def matches(self, site: Site) -> Match:
        """Whether the selector means this site, and if not, why not."""
        outcome = self.condition.check(site)
        return Match(outcome.ok, _reason(outcome))

    def nearest_miss(self, sites: Iterable[AnySite]) -> tuple[AnySite, str] | None:
        """The site that fails although most conditions hold, with the reason.

        Returns:
            Among equals the one whose name is most like a name asked for, else the first; with the
            reason. None when no site fails.
        """
        checked = ((site, self.condition.check(site)) for site in sites)
        missed = [(site, outcome) for site, outcome in checked if not outcome.ok]
        if not missed:
            return None
        most = max(outcome.satisfied for _, outcome in missed)
        nearest = [(site, outcome) for site, outcome in missed if outcome.satisfied == most]
        asked = names_asked(self.condition)
        site, outcome = max(nearest, key=lambda miss: _likeness(miss[0].name, asked))
        return site, _reason(outcome)

    def __str__(self) -> str:
        return str(self.condition)


def _likeness(name: str, asked: Sequence[str]) -> float:
    """How much of a name stands in one of those asked for, 0 to 1."""
    return max((SequenceMatcher(None, one, name).ratio() for one in asked), default=0.0)


def _reason(outcome: Outcome) -> str:
    return "" if outcome.ok else f"{outcome.found}, the rule asks for {outcome.asked}"
