"""What a compilation produced, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from effc.ir.journal import Journal
from effc.ir.manager import Verdict
from effc.ir.program import Program
from effc.ir.sites import Site
from effc.spec.plan import Plan
from effc.spec.schema import Policy


@dataclass
class Compilation:
    """What a compilation produced.

    Attributes:
        program: lowered, ready for `effc.runtime` or for packaging.
        policy: as it was understood.
        plan: which method acts where.
        verdicts: one per pass.
        sites: of the canonical program, before any method acted.
        notes: what the user should know.
        report: ready for report.json.
        lock: ready for policy.lock.
    """

    program: Program
    policy: Policy
    plan: Plan
    verdicts: list[Verdict]
    sites: list[Site]
    notes: list[str]
    journal: Journal
    report: dict[str, Any] = field(default_factory=dict)
    lock: dict[str, Any] = field(default_factory=dict)
