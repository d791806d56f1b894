"""The plan: rules of a policy matched to sites of a model.

Pure decisions: which method acts where, which rule was overridden by a later one, which selected
sites a table cannot serve, and which shared weights come apart. A rule that matches nothing is an
error that names the nearest miss.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from effc.diagnostics import NoMatchError
from effc.spec import conditions
from effc.spec.schema import Choice, Policy, Rule

RuleKey = tuple[str, int]
"""A rule: its table, and its index there."""

SiteKey = tuple[str, str]
"""A site: its stage and graph node."""

TOWER = "encode"
"""The stage of a vision tower."""

Served = Mapping[str, Collection[str]]
"""Aspect -> the kinds of sites that its methods can serve."""


class Site(conditions.Site, Protocol):
    """What the planner reads of a site, besides what selectors read."""

    @property
    def node(self) -> str:
        """The graph node."""
        ...

    @property
    def weight(self) -> str | None:
        """The weight it reads; sites with the same weight share it."""
        ...

    @property
    def bits(self) -> int | None:
        """Bits of its weight, where that came quantized."""
        ...


@dataclass(frozen=True)
class Step:
    """One method at one site.

    Attributes:
        aspect: what of the site it decides: "quantize", "kv", "store", ...
        method: its name.
        options: as the rule states them.
        site: where.
        table: the table of the rule.
        rule: index of the rule among those of its table.
    """

    aspect: str
    method: str
    options: Mapping[str, object]
    site: Site
    table: str
    rule: int


@dataclass(frozen=True)
class RuleMatch:
    """What became of one rule.

    Attributes:
        table, rule: which one.
        where: its selector.
        choices: its methods, by aspect.
        gate: what happens when it breaks a bound.
        place: where it stands in the policy.
        matched: sites that the selector means and the table serves.
        applied: those that no later rule took over, in at least one aspect.
        overridden: the rest.
        nearest_miss: the site that just failed to match, with the reason; None without one.
        disabled: whether the rule was left out on purpose, e.g. reverted by a gate.
    """

    table: str
    rule: int
    where: str
    choices: Mapping[str, Choice]
    gate: str | None
    place: str
    matched: int
    applied: int
    overridden: int
    nearest_miss: str | None
    disabled: bool = False


@dataclass(frozen=True)
class Plan:
    """What will be done, and what the user should know about it.

    Attributes:
        steps: in site order.
        matches: one per rule, in the order of the policy's tables.
        skipped: selected sites that cannot be served: (site name, reason).
        notes: overridden rules, unmatched optional rules, weights that come apart.
    """

    steps: tuple[Step, ...] = ()
    matches: tuple[RuleMatch, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)

    def of(self, aspect: str) -> tuple[Step, ...]:
        """The steps of one aspect."""
        return tuple(step for step in self.steps if step.aspect == aspect)


def make_plan(
    policy: Policy,
    sites: Sequence[Site],
    served: Served,
    *,
    disabled: Collection[RuleKey] = (),
    disabled_sites: Collection[SiteKey] = (),
) -> Plan:
    """Match all rules to sites.

    Args:
        policy: within a table a later rule wins, aspect by aspect.
        sites: of the whole program.
        served: which kinds of sites each aspect can serve.
        disabled: rules to leave out.
        disabled_sites: sites to leave alone.

    Raises:
        NoMatchError: E0401, with the nearest miss and why it missed.
    """
    planner = _Planner(sites, served, frozenset(disabled_sites))
    for rule in (*policy.quantize, *policy.kv, *policy.tokens):
        planner.match(rule, (rule.table, rule.index) in disabled)
    return planner.plan()


@dataclass(frozen=True)
class _Matched:
    """A rule and the positions of the sites it means: selected ones, and served ones among them."""

    rule: Rule
    fit: tuple[int, ...]
    disabled: bool


class _Planner:
    def __init__(self, sites: Sequence[Site], served: Served, left_alone: frozenset[SiteKey]):
        self.sites = sites
        self.served = served
        self.left_alone = left_alone
        self.chosen: dict[str, dict[int, Rule]] = {}
        self.matched: list[_Matched] = []
        self.skipped: dict[str, str] = {}
        self.notes: list[str] = []

    def match(self, rule: Rule, disabled: bool) -> None:
        """Take in the next rule."""
        kinds = self._kinds(rule)
        selected = [i for i, site in enumerate(self.sites) if rule.where.matches(site)]
        reasons = {i: _why_not(rule, self.sites[i], kinds) for i in selected}
        fit = tuple(i for i in selected if not reasons[i])
        if not fit:
            self._nothing(rule, kinds, selected)
        self.skipped.update({self.sites[i].name: why for i, why in reasons.items() if why})
        self.matched.append(_Matched(rule, fit, disabled))
        if disabled:
            return
        earlier: dict[int, int] = {}
        for aspect in rule.choices():
            chosen = self.chosen.setdefault(aspect, {})
            acting = [i for i in fit if self._key(i) not in self.left_alone]
            for old in (chosen[i] for i in acting if i in chosen):
                earlier[old.index] = earlier.get(old.index, 0) + 1
            chosen.update(dict.fromkeys(acting, rule))
        self.notes += [
            f"[[{rule.table}]] rule {rule.index + 1} overrides rule {old + 1} at {count} sites"
            for old, count in earlier.items()
        ]

    def plan(self) -> Plan:
        """All decisions."""
        steps = [
            (i, Step(aspect, choice.method, choice.options, self.sites[i], rule.table, rule.index))
            for aspect, chosen in self.chosen.items()
            for i, rule in chosen.items()
            for choice in (rule.choices()[aspect],)
        ]
        steps.sort(key=lambda step: step[0])
        notes = (*self.notes, *_untied(self.sites, self.chosen.get("quantize", {})))
        matches = tuple(self._account(matched) for matched in self.matched)
        return Plan(tuple(s for _, s in steps), matches, tuple(self.skipped.items()), notes)

    def _account(self, matched: _Matched) -> RuleMatch:
        rule = matched.rule
        winners = [self.chosen.get(aspect, {}) for aspect in rule.choices()]
        acts = {i for chosen in winners for i, winner in chosen.items() if winner is rule}
        kinds = self._kinds(rule)
        missed = rule.where.nearest_miss([site for site in self.sites if site.kind in kinds])
        return RuleMatch(
            table=rule.table,
            rule=rule.index,
            where=str(rule.where),
            choices=rule.choices(),
            gate=rule.gate,
            place=str(rule.span),
            matched=len(matched.fit),
            applied=len(acts),
            overridden=0 if matched.disabled else len(matched.fit) - len(acts),
            nearest_miss=f"{missed[0].name}: {missed[1]}" if missed else None,
            disabled=matched.disabled,
        )

    def _kinds(self, rule: Rule) -> set[str]:
        return {kind for aspect in rule.choices() for kind in self.served.get(aspect, ())}

    def _key(self, i: int) -> SiteKey:
        return self.sites[i].stage, self.sites[i].node

    def _nothing(self, rule: Rule, kinds: set[str], selected: list[int]) -> None:
        what = f"[[{rule.table}]] where = {_quoted(str(rule.where))}"
        reason = self._why_nothing(rule, kinds, selected)
        if rule.optional:
            self.notes.append(
                f"{rule.where_span}: {what} matches nothing ({reason}); it is optional"
            )
            return
        count = len(self.sites)
        found = f"{len(selected)} sites, all in vain" if selected else f"none of {count} sites"
        raise NoMatchError(
            "E0401",
            f"{what} matches {found}; {reason}",
            where=rule.where_span,
            help="list the sites with 'effc inspect MODEL', or set optional = true",
        )

    def _why_nothing(self, rule: Rule, kinds: set[str], selected: list[int]) -> str:
        served = [self.sites[i] for i in selected if self.sites[i].kind in kinds]
        if served:
            return f"{_why_not(rule, served[0], kinds)} ({served[0].name})"
        if selected:
            found = ", ".join(sorted({self.sites[i].kind for i in selected}))
            served = f"; it serves {', '.join(sorted(kinds))}" if kinds else ""
            return f"{rule.table} does not serve sites of kind {found}{served}"
        fit = [site for site in self.sites if site.kind in kinds]
        if not fit:
            there = ", ".join(sorted({site.kind for site in self.sites})) or "none at all"
            return f"the model has no sites of kind {', '.join(sorted(kinds))}; it has {there}"
        miss = rule.where.nearest_miss(fit)
        return f"nearest miss: {miss[0].name}: {miss[1]}" if miss else "no site is left over"


def _why_not(rule: Rule, site: Site, kinds: set[str]) -> str:
    """Why a rule cannot act on a site that it selects; empty when it can."""
    if site.kind not in kinds:
        return f"{rule.table} does not serve sites of kind {site.kind}"
    if rule.table == "quantize" and site.bits is not None:
        return f"its weight is quantized already, {site.bits} bits"
    if rule.table == "kv" and site.stage == TOWER:
        return "a vision tower reads all of an image at once and keeps no cache"
    return ""


def _quoted(text: str) -> str:
    """A text as TOML would have it, in the quotes that it does not contain."""
    return f"'{text}'" if '"' in text else f'"{text}"'


def _untied(sites: Sequence[Site], chosen: Mapping[int, Rule]) -> list[str]:
    """Weights whose sites do not all get the same treatment are stored more than once."""
    users: dict[str, list[int]] = {}
    for i, site in enumerate(sites):
        if site.weight is not None:
            users.setdefault(site.weight, []).append(i)
    notes = []
    for weight, indices in users.items():
        treatments = {_treatment(chosen.get(i)) for i in indices}
        if len(indices) > 1 and len(treatments) > 1:
            names = ", ".join(sites[i].name for i in indices)
            notes.append(f"weight {weight!r} is shared by {names} and comes apart: one copy each")
    return notes


def _treatment(rule: Rule | None) -> tuple[object, ...]:
    """What a rule does; two rules that ask for the same leave a shared weight whole."""
    return () if rule is None else (rule.method, *sorted(rule.options.items()))
