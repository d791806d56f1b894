"""The plan: rules of a policy matched to sites of a model.

Pure decisions: which method acts where, which rule was overridden by a later one, which selected
sites a table cannot serve, and which shared weights come apart. A rule that matches nothing is an
error that names the nearest miss.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from effc.diagnostics import NoMatchError
from effc.spec import conditions
from effc.spec.schema import Rule


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


@dataclass(frozen=True)
class Step:
    """One method at one site.

    Attributes:
        table: "quantize", ...
        method: its name.
        options: as the rule states them.
        site: where.
        rule: index of the rule among those of its table.
    """

    table: str
    method: str
    options: Mapping[str, object]
    site: Site
    rule: int


@dataclass(frozen=True)
class Plan:
    """What will be done, and what the user should know about it.

    Attributes:
        steps: in site order.
        skipped: selected sites that cannot be served: (site name, reason).
        notes: overridden rules, unmatched optional rules, weights that come apart.
    """

    steps: tuple[Step, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = field(default_factory=tuple)


def make_plan(rules: Sequence[Rule], sites: Sequence[Site], kinds: Iterable[str]) -> Plan:
    """Match the rules of one table to sites.

    Args:
        rules: in the order of the policy; a later one wins.
        sites: of the whole program.
        kinds: kinds of sites that the table's methods can serve.

    Raises:
        NoMatchError: E0401, with the nearest miss and why it missed.
    """
    served = set(kinds)
    chosen: dict[int, Rule] = {}
    skipped: dict[str, str] = {}
    notes: list[str] = []
    for rule in rules:
        matched = [i for i, site in enumerate(sites) if rule.where.matches(site)]
        fit = [i for i in matched if sites[i].kind in served]
        if not fit:
            _nothing(rule, sites, served, matched, notes)
        notes += _overridden(rule, [chosen[i] for i in fit if i in chosen])
        chosen.update(dict.fromkeys(fit, rule))
        for site in (sites[i] for i in matched if sites[i].kind not in served):
            skipped[site.name] = f"{rule.table} does not serve sites of kind {site.kind}"
    notes += _untied(sites, chosen)
    steps = tuple(
        Step(rule.table, rule.method, rule.options, sites[i], rule.index)
        for i, rule in sorted(chosen.items())
    )
    return Plan(steps, tuple(skipped.items()), tuple(notes))


def _nothing(
    rule: Rule, sites: Sequence[Site], served: set[str], matched: list[int], notes: list[str]
) -> None:
    what = f'[[{rule.table}]] where = "{rule.where}"'
    if matched:
        kinds = ", ".join(sorted({sites[i].kind for i in matched}))
        reason = f"{rule.table} does not serve sites of kind {kinds}"
    else:
        miss = rule.where.nearest_miss([s for s in sites if s.kind in served] or sites)
        reason = f"nearest miss: {miss[0].name}: {miss[1]}" if miss else "the model has no sites"
    if rule.optional:
        notes.append(f"{rule.where_span}: {what} matches nothing ({reason}); it is optional")
        return
    found = f"{len(matched)} sites, all in vain" if matched else f"none of {len(sites)} sites"
    raise NoMatchError(
        "E0401",
        f"{what} matches {found}; {reason}",
        where=rule.where_span,
        help="list the sites with 'effc inspect MODEL', or set optional = true",
    )


def _overridden(rule: Rule, earlier: Sequence[Rule]) -> list[str]:
    counts: dict[int, int] = {}
    for old in earlier:
        counts[old.index] = counts.get(old.index, 0) + 1
    return [
        f"[[{rule.table}]] rule {rule.index + 1} overrides rule {old + 1} at {count} sites"
        for old, count in counts.items()
    ]


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
