"""Which step of a guilty rule does the most harm.

The rule acts alone, first on all its sites, then on ever smaller sets of them: of two halves,
ordered by layer, one is tried, and where it does at least half the harm the search goes on in it,
else in the other. With n sites that takes at most ceil(log2 n) + 2 trials. Where harms add up and
one site does more than half of each set it is in, that site is found; else some site of the worse
halves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from effc.evaluate.gates import Gate, badness, excess
from effc.evaluate.trials import Trial, Trials
from effc.spec.plan import RuleKey, SiteKey, Step

# What a gate measures where nothing was rewritten, turned so that more is worse.
_HARMLESS = {"max_kl": 0.0, "max_perplexity_ratio": 1.0, "min_top1": -1.0, "max_time_ratio": 1.0}


@dataclass(frozen=True)
class GuiltyStep:
    """The worst site of a rule.

    Attributes:
        step: method and site.
        gate: the gate whose value is compared.
        alone: its value with this step alone, None where that is no number.
        rule_alone: its value with the whole rule and nothing else.
        share: harm of the step over harm of the rule; harms need not add up to 1.
    """

    step: Step
    gate: str
    alone: float | None
    rule_alone: float | None
    share: float | None

    def to_dict(self) -> dict[str, Any]:
        """For reports."""
        site = self.step.site
        return {
            "site": site.name,
            "layer": site.layer,
            "method": self.step.method,
            "gate": self.gate,
            "alone": self.alone,
            "rule_alone": self.rule_alone,
            "share": self.share,
        }

    def __str__(self) -> str:
        alone, rule = (_number(value) for value in (self.alone, self.rule_alone))
        share = "" if self.share is None else f", {100 * self.share:.0f} % of the harm"
        return (
            f"{self.step.method} at {self.step.site.name} (by itself {alone}, the whole rule by "
            f"itself {rule}{share})"
        )


def find_guilty_step(
    trials: Trials, rules: Sequence[RuleKey], guilty: RuleKey, whole: Trial
) -> GuiltyStep:
    """The worst step of a rule.

    Args:
        trials: to try with.
        rules: all rules of the policy.
        guilty: the rule, which has a step in `whole`.
        whole: the trial whose gates broke.
    """
    gate = max((g for g in whole.gates if not g["held"]), key=lambda g: excess([g]))["name"]
    search = _Search(trials, [rule for rule in rules if rule != guilty], gate)
    steps = [s for s in whole.plan.steps if (s.table, s.rule) == guilty]
    order = {_key(step): place for place, step in enumerate(steps)}
    sites = sorted(order, key=lambda key: _depth(steps[order[key]]))
    everything, worst = search.run(sites)
    alone = search.harm([worst])
    return GuiltyStep(
        step=steps[order[worst]],
        gate=gate,
        alone=search.value([worst]),
        rule_alone=search.value(sites),
        share=alone / everything if 0 < everything < math.inf else None,
    )


class _Search:
    """One rule by itself, on some of its sites."""

    def __init__(self, trials: Trials, others: Sequence[RuleKey], gate: str) -> None:
        self._trials = trials
        self._others = others
        self._gate = gate
        self._all: frozenset[SiteKey] = frozenset()

    def run(self, sites: Sequence[SiteKey]) -> tuple[float, SiteKey]:
        """The harm of all sites, and the worst site."""
        total = harm = self.harm(sites)
        while len(sites) > 1:
            middle = len(sites) // 2
            first, second = sites[:middle], sites[middle:]
            other = self.harm(second)
            # Not `harm - other`: both are infinite where a model is ruined altogether.
            sites, harm = (second, other) if other >= harm / 2 else (first, harm - other)
        return total, sites[0]

    def harm(self, sites: Sequence[SiteKey]) -> float:
        """How much worse than harmless the rule is on these sites; never negative."""
        return max(0.0, badness(self._gate_on(sites)) - _HARMLESS[self._gate])

    def value(self, sites: Sequence[SiteKey]) -> float | None:
        """What the gate measures with these sites."""
        return self._gate_on(sites)["value"]

    def _gate_on(self, sites: Sequence[SiteKey]) -> Gate:
        if not self._all:
            # Where the rule was overridden it would act now: those sites are left alone too.
            self._all = self._trials.sites_without(self._others)
        return self._trials.without(self._others, self._all - set(sites)).gate(self._gate)


def _key(step: Step) -> SiteKey:
    return step.site.stage, step.site.node


def _depth(step: Step) -> float:
    """The layer; what lies outside the layers comes before them."""
    return -1 if step.site.layer is None else step.site.layer


def _number(value: float | None) -> str:
    return "not a number" if value is None else f"{value:.4g}"
