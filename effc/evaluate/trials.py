"""Variants of a compilation: the plan without some rules or sites, built and measured once each."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from effc.evaluate.gates import Gate, check_gates
from effc.ir.program import Program
from effc.spec.plan import Plan, RuleKey, SiteKey
from effc.spec.schema import Policy, Rule

Rules = frozenset[RuleKey]
Sites = frozenset[SiteKey]

PlanOf = Callable[[Rules, Sites], Plan]
"""The plan without these rules, which leaves these sites alone."""

Build = Callable[[Plan], Program]
Measure = Callable[[Program], dict[str, Any]]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Trial:
    """One variant and what it costs.

    Attributes:
        plan: what it does.
        program: lowered.
        quality: see `effc.evaluate.measure.measure`.
        gates: see `effc.evaluate.gates.check_gates`.
    """

    plan: Plan
    program: Program
    quality: dict[str, Any]
    gates: list[Gate]

    @property
    def held(self) -> bool:
        """Whether all gates hold."""
        return all(gate["held"] for gate in self.gates)

    def gate(self, name: str) -> Gate:
        """The gate called `name`."""
        return next(gate for gate in self.gates if gate["name"] == name)


class Trials:
    """Builds and measures variants; the same plan only once.

    Attributes:
        count: how many were built.
    """

    def __init__(
        self, policy: Policy, plan_of: PlanOf, build: Build, measure: Measure, say: Say
    ) -> None:
        self._policy = policy
        self._plan_of = plan_of
        self._build = build
        self._measure = measure
        self._say = say
        self._known: dict[frozenset[object], Trial] = {}

    @property
    def count(self) -> int:
        return len(self._known)

    def without(self, rules: Collection[RuleKey], sites: Collection[SiteKey] = ()) -> Trial:
        """The variant without these rules, with these sites left alone."""
        plan = self._plan_of(frozenset(rules), frozenset(sites))
        key = frozenset(
            (step.table, step.rule, step.aspect, step.site.stage, step.site.node)
            for step in plan.steps
        )
        if key not in self._known:
            self._known[key] = self._try(plan, rules, sites)
        return self._known[key]

    def sites_without(self, rules: Collection[RuleKey]) -> Sites:
        """The sites that the plan without these rules acts on; nothing is built."""
        plan = self._plan_of(frozenset(rules), frozenset())
        return frozenset((step.site.stage, step.site.node) for step in plan.steps)

    def _try(self, plan: Plan, rules: Collection[RuleKey], sites: Collection[SiteKey]) -> Trial:
        if rules or sites:
            left = ", ".join(f"[[{table}]] rule {index + 1}" for table, index in sorted(rules))
            alone = f"{len(sites)} sites left alone" if sites else ""
            self._say(f"measuring without {' and with '.join(filter(None, (left, alone)))}")
        program = self._build(plan)
        quality = self._measure(program)
        return Trial(plan, program, quality, check_gates(self._policy.quality, quality))


def rules_of(policy: Policy) -> dict[RuleKey, Rule]:
    """All rules by key, in the order of the policy's tables."""
    rules: tuple[Rule, ...] = (*policy.quantize, *policy.kv, *policy.tokens)
    return {(rule.table, rule.index): rule for rule in rules}


def rule_name(rule: Rule) -> str:
    """A rule in words: `[[quantize]] rule 2 (rtn where linear)`."""
    methods = " and ".join(choice.method for choice in rule.choices().values())
    return f"[[{rule.table}]] rule {rule.index + 1} ({methods} where {rule.where})"
