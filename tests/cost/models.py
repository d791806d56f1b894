"""Canonical programs and plans for tests of the cost model."""

from __future__ import annotations

from typing import Any

from effc.canonical import canonical_program
from effc.ir.journal import Journal
from effc.ir.program import Program
from effc.ir.sites import Site, find_sites
from effc.pipeline import SERVED, rewrite
from effc.spec.plan import Plan, make_plan
from effc.spec.schema import Choice, KvRule, Policy, QuantizeRule, TargetSpec
from effc.spec.selector import Selector


def quantize(where: str, **options: Any) -> QuantizeRule:
    """A rule `[[quantize]] method = "rtn"`."""
    return QuantizeRule(where=Selector.parse(where), method="rtn", options=options)


def store(where: str = "attention") -> KvRule:
    """A rule `[[kv]] store = { method = "int8" }`."""
    return KvRule(where=Selector.parse(where), method="", store=Choice("int8"))


def policy(*rules: QuantizeRule | KvRule, **target: Any) -> Policy:
    """A policy of these rules; each gets its index within its table."""
    tables: dict[str, list[Any]] = {"quantize": [], "kv": []}
    for rule in rules:
        fields = {**vars(rule), "index": len(tables[rule.table])}
        tables[rule.table].append(type(rule)(**fields))
    return Policy(
        target=TargetSpec(**target), quantize=tuple(tables["quantize"]), kv=tuple(tables["kv"])
    )


def planned(source: Any, chosen: Policy, **options: Any) -> tuple[Program, list[Site], Plan]:
    """The canonical program of a source, its sites and the plan of a policy."""
    program, _, _ = canonical_program(source, chosen, **options)
    sites = find_sites(program)
    return program, sites, make_plan(chosen, sites, SERVED)


def lowered(program: Program, chosen: Policy, plan: Plan) -> Program:
    """The program after the plan was carried out."""
    copy = program.copy()
    rewrite(copy, chosen, plan, Journal())
    return copy
