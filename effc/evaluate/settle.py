"""From a broken gate to a model within its bounds, or to the step that breaks them.

1. All rules are tried. If the gates hold, that is the result.
2. Each of the n rules is left out alone. Its *gain* is how far that moves the broken gates, in
   parts of their bounds.
3. Of the m rules with gate = "revert": if leaving out one of them is enough, the one with the
   largest gain goes. Else they are left out one after the other, largest gain first, until the
   gates hold; then each of those is put back, smallest gain first, and stays if they still hold.
4. The worst step of every rule that goes is named, or of the rule with the largest gain if the
   gates do not hold whatever goes (`effc.evaluate.guilt`).

At most 1 + n + 2 m trials, and ceil(log2 s) + 2 for each rule named, s its sites. If leaving out
more never does harm, a set of rules that helps is found whenever there is one, and none of it can
be spared. Nothing is ever returned whose gates were not measured to hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from effc.diagnostics import GateError
from effc.evaluate.gates import describe, relief
from effc.evaluate.guilt import GuiltyStep, find_guilty_step
from effc.evaluate.trials import (
    Build,
    Measure,
    PlanOf,
    Rules,
    Say,
    Trial,
    Trials,
    rule_name,
    rules_of,
)
from effc.ir.program import Program
from effc.spec.plan import Plan, RuleKey
from effc.spec.schema import Policy, Rule


@dataclass(frozen=True)
class Settled:
    """A model whose gates hold.

    Attributes:
        program: lowered.
        plan: what was done; reverted rules are disabled in it.
        quality: what was measured.
        reverted: one entry per reverted rule: rule, place, reason, measured.
        disabled: their keys.
        trials: how many variants were built and measured.
    """

    program: Program
    plan: Plan
    quality: dict[str, Any]
    reverted: list[dict[str, Any]]
    disabled: Rules
    trials: int


def settle(
    policy: Policy, plan_of: PlanOf, build: Build, measure: Measure, say: Say = lambda line: None
) -> Settled:
    """Build the model; where its gates break, undo what may be undone.

    Args:
        policy: its bounds, and its rules with their gates.
        plan_of: the plan without some rules, leaving some sites alone.
        build: a fresh lowered program for a plan.
        measure: the quality of a program against the original.
        say: told what is going on, a line at a time.

    Raises:
        GateError: E0408, with the broken gates, the guilty rule and its worst step.
    """
    trials = Trials(policy, plan_of, build, measure, say)
    whole = trials.without(())
    if whole.held:
        return _settled(whole, trials, [], frozenset())
    for gate in whole.gates:
        say(describe(gate))
    rules = rules_of(policy)
    suspects = _by_gain(trials, whole, rules)
    revertible = [key for key in suspects if rules[key].gate == "revert"]
    disabled = _enough(trials, revertible)
    if disabled is None:
        raise _failed(trials, whole, rules, suspects)
    entries = []
    for key in sorted(disabled):
        guilty = find_guilty_step(trials, list(rules), key, whole) if _acts(whole, key) else None
        entries.append(_reverted(rules[key], whole, trials.without(disabled), guilty))
        say(f"reverted {entries[-1]['rule']}: {entries[-1]['reason']}")
    return _settled(trials.without(disabled), trials, entries, disabled)


def _settled(
    trial: Trial, trials: Trials, reverted: list[dict[str, Any]], disabled: Rules
) -> Settled:
    return Settled(trial.program, trial.plan, trial.quality, reverted, disabled, trials.count)


def _by_gain(trials: Trials, whole: Trial, rules: Mapping[RuleKey, Rule]) -> list[RuleKey]:
    """Rules by what leaving them out alone gains, the largest gain first."""
    gains = {key: _gain(whole, trials.without([key])) for key in rules}
    return sorted(rules, key=lambda key: -gains[key])


def _gain(whole: Trial, without: Trial) -> float:
    """How far a variant moves the broken gates towards their bounds, or past them."""
    broken = (gate for gate in whole.gates if not gate["held"])
    return sum(relief(gate, without.gate(gate["name"])) for gate in broken)


def _enough(trials: Trials, ranked: Sequence[RuleKey]) -> Rules | None:
    """Rules without which the gates hold, see step 3 above; None if there are none."""
    for key in ranked:
        if trials.without([key]).held:
            return frozenset([key])
    counts = range(2, len(ranked) + 1)
    count = next((n for n in counts if trials.without(ranked[:n]).held), None)
    if count is None:
        return None
    needed = list(ranked[:count])
    for key in reversed(ranked[:count]):
        fewer = [other for other in needed if other != key]
        if fewer and trials.without(fewer).held:
            needed = fewer
    return frozenset(needed)


def _acts(trial: Trial, key: RuleKey) -> bool:
    return any((step.table, step.rule) == key for step in trial.plan.steps)


def _reverted(
    rule: Rule, whole: Trial, settled: Trial, guilty: GuiltyStep | None
) -> dict[str, Any]:
    broken = [gate for gate in whole.gates if not gate["held"]]
    reason = "; ".join(describe(gate) for gate in broken)
    if guilty is not None:
        reason += f"; worst step: {guilty}"
    return {
        "rule": rule_name(rule),
        "place": str(rule.span),
        "reason": reason,
        "measured": {
            "before": whole.gates,
            "after": settled.gates,
            "worst_step": None if guilty is None else guilty.to_dict(),
        },
    }


def _failed(
    trials: Trials, whole: Trial, rules: Mapping[RuleKey, Rule], suspects: Sequence[RuleKey]
) -> GateError:
    broken = "; ".join(describe(gate) for gate in whole.gates if not gate["held"])
    acting = [key for key in suspects if _acts(whole, key)]
    if not acting:
        return GateError(
            "E0408",
            f"{broken}; no rule of the policy changes the model",
            where="[quality]",
            help="the bound is narrower than what the measurement itself varies by; widen it",
        )
    rule, without = rules[acting[0]], trials.without([acting[0]])
    guilty = find_guilty_step(trials, list(rules), acting[0], whole)
    after = "; ".join(describe(gate) for gate in without.gates)
    return GateError(
        "E0408",
        f"{broken}. The guilty rule is {rule_name(rule)}; without it {after}. "
        f"Its worst step is {guilty}",
        where=rule.span,
        help=_remedy(rule, guilty),
    )


def _remedy(rule: Rule, guilty: GuiltyStep) -> str:
    site = f'name("{guilty.step.site.name}")'
    undo = (
        "every rule that may be reverted was, which was not enough"
        if rule.gate == "revert"
        else 'set gate = "revert" on this rule to undo it where it breaks a bound'
    )
    milder = "give more bits to" if rule.table == "quantize" else "use a milder method at"
    return f"{milder} where = '{site}' in a later rule, or exclude it; {undo}"
