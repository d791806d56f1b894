"""Finding the guilty rule and step: every case of up to four rules, with made-up damage."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from effc.diagnostics import ExitCode, GateError
from effc.evaluate.settle import Settled, settle
from effc.evaluate.trials import Rules, Sites
from effc.spec.plan import Plan, Step
from effc.spec.schema import Policy, QualitySpec, QuantizeRule

BOUND = 1.0
Damage = Callable[[frozenset[int]], float]
OfSteps = Callable[[frozenset[tuple[int, int]]], float]


@dataclass(frozen=True)
class Place:
    """A site with the fields that are read of it."""

    name: str
    layer: int | None = None
    stage: str = "forward"

    @property
    def node(self) -> str:
        return self.name


class House:
    """A policy of rules over sites of their own, a builder and a yardstick.

    Args:
        gates: one per rule.
        sites: how many sites each rule has.
        damage: the KL of a model in which these rules act, by index.
        of_steps: the KL of a model with these steps (rule, layer); instead of `damage`.
    """

    def __init__(
        self,
        gates: Sequence[str | None],
        damage: Damage | None = None,
        *,
        sites: int = 1,
        of_steps: OfSteps | None = None,
    ) -> None:
        rules = tuple(
            QuantizeRule("linear", "rtn", {}, gate=gate, index=i, span=f"policy.toml:{i + 1}:1")  # type: ignore[arg-type]
            for i, gate in enumerate(gates)
        )
        self.policy = Policy(quality=QualitySpec(max_kl=BOUND), quantize=rules)
        self.steps = [
            Step("quantize", "rtn", {}, Place(f"layers.{n}.r{i}", n), "quantize", i)  # type: ignore[arg-type]
            for i in range(len(gates))
            for n in range(sites)
        ]
        self.damage, self.of_steps = damage, of_steps
        self.built = 0
        self.said: list[str] = []

    def plan_of(self, rules: Rules, sites: Sites) -> Plan:
        return Plan(
            tuple(
                step
                for step in self.steps
                if (step.table, step.rule) not in rules
                and (step.site.stage, step.site.node) not in sites
            )
        )

    def build(self, plan: Plan) -> Any:
        self.built += 1
        return SimpleNamespace(plan=plan)

    def measure(self, program: Any) -> dict[str, Any]:
        if self.of_steps is not None:
            kl = self.of_steps(frozenset((s.rule, s.site.layer) for s in program.plan.steps))
        else:
            assert self.damage is not None
            kl = self.damage(frozenset(step.rule for step in program.plan.steps))
        return {"kl": {"mean": kl if math.isfinite(kl) else None, "stderr": 0.01}}

    def settle(self) -> Settled:
        return settle(self.policy, self.plan_of, self.build, self.measure, self.said.append)


def additive(harms: Sequence[float]) -> Damage:
    return lambda rules: sum(harms[rule] for rule in rules)


def worst_of(harms: Sequence[float]) -> Damage:
    """A second cause of ruin adds nothing: leaving out one of two shows no gain."""
    return lambda rules: max((harms[rule] for rule in rules), default=0.0)


def only_together(harms: Sequence[float]) -> Damage:
    """Harm needs company: one rule by itself is harmless."""
    return lambda rules: sum(harms[rule] for rule in rules) if len(rules) > 1 else 0.0


SHAPES = (additive, worst_of, only_together)


def subsets(of: Collection[int]) -> list[frozenset[int]]:
    items = sorted(of)
    sizes = range(len(items) + 1)
    return [frozenset(s) for size in sizes for s in itertools.combinations(items, size)]


def all_houses() -> list[tuple[Any, int, frozenset[int], frozenset[int]]]:
    """Every shape, number of rules, set of guilty rules and set of rules that may be reverted."""
    return [
        (shape, n, guilty, revertible)
        for shape in SHAPES
        for n in range(1, 5)
        for guilty in subsets(range(n))
        for revertible in subsets(range(n))
    ]


def test_there_are_enough_cases() -> None:
    assert len(all_houses()) == 3 * sum(4**n for n in range(1, 5))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ruin", (1.5, math.inf))
def test_every_case_of_up_to_four_rules(shape: Any, ruin: float) -> None:
    for chosen, n, guilty, revertible in all_houses():
        if chosen is not shape:
            continue
        harms = [ruin if rule in guilty else 0.01 * (1 + rule) for rule in range(n)]
        damage = shape(harms)
        gates = ["revert" if rule in revertible else None for rule in range(n)]
        house = House(gates, damage)
        everything = frozenset(range(n))
        mended = [s for s in subsets(revertible) if damage(everything - s) <= BOUND]
        case = (shape.__name__, n, sorted(guilty), sorted(revertible))
        if not mended:
            with pytest.raises(GateError):
                house.settle()
            assert house.built <= bound(n, len(revertible), named=1), case
            continue
        settled = house.settle()
        gone = frozenset(index for _, index in settled.disabled)
        assert gone <= revertible, case
        assert damage(everything - gone) <= BOUND, case
        assert {step.rule for step in settled.plan.steps} == everything - gone, case
        # Nothing was reverted that could have stayed, and where one rule is enough, one went.
        assert not any(damage(everything - s) <= BOUND for s in subsets(gone) if s != gone), case
        if any(len(s) == 1 for s in mended):
            assert len(gone) <= 1, case
        assert [entry["place"] for entry in settled.reverted] == [
            f"policy.toml:{index + 1}:1" for index in sorted(gone)
        ], case
        assert house.built == settled.trials <= bound(n, len(revertible), named=len(gone)), case


def bound(rules: int, revertible: int, named: int, sites: int = 1) -> int:
    """What the module promises."""
    return 1 + rules + 2 * revertible + named * (math.ceil(math.log2(sites)) + 2)


def test_a_model_within_its_bounds_is_built_once() -> None:
    house = House(["revert", None], additive([0.4, 0.5]))
    settled = house.settle()
    assert (settled.trials, settled.reverted, house.said) == (1, [], [])
    assert settled.quality["kl"]["mean"] == 0.9


def test_the_rule_with_the_largest_gain_goes() -> None:
    """Either of the first two would be enough."""
    settled = House(["revert"] * 3, additive([0.5, 0.7, 0.1])).settle()
    assert settled.disabled == {("quantize", 1)}
    assert settled.quality["kl"]["mean"] == pytest.approx(0.6)


def test_rules_that_harm_less_stay_where_two_must_go() -> None:
    settled = House(["revert"] * 4, additive([1.9, 0.02, 1.8, 0.3])).settle()
    assert settled.disabled == {("quantize", 0), ("quantize", 2)}
    assert settled.quality["kl"]["mean"] == pytest.approx(0.32)


def test_harm_that_cancels_never_passes_a_broken_model() -> None:
    """Two rules whose errors compensate: leaving out one of them makes it worse."""

    def damage(rules: frozenset[int]) -> float:
        return {0: 0.0, 1: 3.0, 2: 1.2}[len(rules)]

    settled = House(["revert", "revert"], damage).settle()
    assert settled.quality["kl"]["mean"] == 0.0
    with pytest.raises(GateError):
        House(["revert", None], damage).settle()


def test_a_reverted_rule_is_recorded_with_figures() -> None:
    house = House([None, "revert"], additive([0.2, 3.0]))
    (entry,) = house.settle().reverted
    assert entry["rule"] == "[[quantize]] rule 2 (rtn where linear)"
    assert entry["place"] == "policy.toml:2:1"
    assert entry["reason"] == (
        "max_kl: 3.2 ± 0.01, bound: at most 1, broken; worst step: rtn at layers.0.r1 "
        "(by itself 3, the whole rule by itself 3, 100 % of the harm)"
    )
    assert entry["measured"]["before"][0]["value"] == 3.2
    assert entry["measured"]["after"][0]["value"] == 0.2
    assert entry["measured"]["worst_step"]["site"] == "layers.0.r1"
    assert house.said[0].startswith("max_kl: 3.2")
    assert house.said[-1].startswith("reverted [[quantize]] rule 2")


def test_a_failed_gate_names_rule_step_and_remedy() -> None:
    def damage(steps: frozenset[tuple[int, int]]) -> float:
        return sum(2.0 if step == (1, 5) else 0.01 for step in steps)

    house = House([None, "fail"], of_steps=damage, sites=8)
    with pytest.raises(GateError) as error:
        house.settle()
    assert error.value.exit_code == ExitCode.GATE
    assert error.value.code == "E0408"
    assert error.value.where == "policy.toml:2:1"
    assert error.value.message == (
        "max_kl: 2.15 ± 0.01, bound: at most 1, broken. The guilty rule is [[quantize]] rule 2 "
        "(rtn where linear); without it max_kl: 0.08 ± 0.01, bound: at most 1, held. Its worst "
        "step is rtn at layers.5.r1 (by itself 2, the whole rule by itself 2.07, 97 % of the harm)"
    )
    assert error.value.help == (
        "give more bits to where = 'name(\"layers.5.r1\")' in a later rule, or exclude it; "
        'set gate = "revert" on this rule to undo it where it breaks a bound'
    )


def test_a_policy_without_rules_can_still_break_a_gate() -> None:
    with pytest.raises(GateError, match="no rule of the policy changes the model") as error:
        House([], lambda rules: 2.0).settle()
    assert error.value.where == "[quality]"


@pytest.mark.parametrize("sites", range(1, 34))
def test_a_site_that_does_most_of_the_harm_is_found(sites: int) -> None:
    """At every place among up to 33 sites, within the promised number of trials."""
    for place in range(sites):

        def damage(steps: frozenset[tuple[int, int]], worst: int = place) -> float:
            return sum(5.0 if layer == worst else 0.1 for _, layer in steps)

        house = House(["revert"], of_steps=damage, sites=sites)
        settled = house.settle()
        step = settled.reverted[0]["measured"]["worst_step"]
        assert step["site"] == f"layers.{place}.r0"
        assert step["layer"] == place
        total = 5.0 + 0.1 * (sites - 1)
        assert step["alone"] == pytest.approx(5.0)
        assert step["share"] == pytest.approx(5.0 / total)
        assert house.built <= bound(1, 1, named=1, sites=sites)


@pytest.mark.parametrize("guilty", ((0,), (7,), (2, 5), (0, 1, 2, 3), tuple(range(8))))
@pytest.mark.parametrize("ruin", (9.0, math.inf))
def test_one_of_several_ruinous_sites_is_found(guilty: tuple[int, ...], ruin: float) -> None:
    """Where a single site ruins the model and a second one adds nothing."""

    def damage(steps: frozenset[tuple[int, int]]) -> float:
        return ruin if any((0, layer) in steps for layer in guilty) else 0.0

    settled = House(["revert", None], of_steps=damage, sites=8).settle()
    step = settled.reverted[0]["measured"]["worst_step"]
    assert step["layer"] in guilty
    assert step["alone"] == (ruin if math.isfinite(ruin) else None)


def test_a_rule_is_judged_only_where_it_acts() -> None:
    """The first rule would do most harm at a site that the second one took over."""

    def damage(steps: frozenset[tuple[int, int]]) -> float:
        return sum({(0, 1): 2.0, (0, 2): 50.0}.get(step, 0.1) for step in steps)

    class Overridden(House):
        def plan_of(self, rules: Rules, sites: Sites) -> Plan:
            plan = super().plan_of(rules, sites)
            taken = {step.site.layer for step in plan.steps if step.rule == 1}
            return Plan(tuple(s for s in plan.steps if s.rule == 1 or s.site.layer not in taken))

    house = Overridden(["fail", None], of_steps=damage, sites=4)
    house.steps = [step for step in house.steps if step.rule == 0 or step.site.layer == 2]
    with pytest.raises(
        GateError, match=r"rule 1 .* worst step is rtn at layers\.1\.r0 .by itself 2,"
    ):
        house.settle()
