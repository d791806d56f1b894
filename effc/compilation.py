"""What planning and compiling produce, as data."""

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
class Planned:
    """What a policy will do to a model; no weight has been read.

    Attributes:
        program: canonical: captured, normalized, raised; no method has acted.
        policy: as it was understood.
        sites: where rules can act.
        plan: which method acts where.
        prediction: bytes, FLOPs and time bounds, see `effc.cost.prediction.predict`.
        journal: what the canonical passes did.
        verdicts: one per canonical pass.
        notes: what the user should know.
        bytes_before: of the weights, before any method acts.
    """

    program: Program
    policy: Policy
    sites: list[Site]
    plan: Plan
    prediction: dict[str, Any]
    journal: Journal
    verdicts: list[Verdict]
    notes: list[str]
    bytes_before: int


@dataclass
class Compilation:
    """What a compilation produced.

    Attributes:
        program: lowered, ready for `effc.runtime` or for packaging.
        policy: as it was understood.
        plan: which method acts where, reverted rules disabled.
        verdicts: one per pass.
        sites: of the canonical program, before any method acted.
        notes: what the user should know.
        journal: every rewrite, and near misses.
        bytes_before: of the weights, before any method acted.
        prediction: what was expected of this plan.
        timed_prediction: the same for this machine and the tokens that were timed, if any were.
        quality: what the rewrite cost, see `effc.evaluate.measure`; None when nothing was measured.
        reverted: rules that a gate undid, each with its reason.
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
    bytes_before: int
    prediction: dict[str, Any]
    timed_prediction: dict[str, Any] | None = None
    quality: dict[str, Any] | None = None
    reverted: list[dict[str, Any]] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)
    lock: dict[str, Any] = field(default_factory=dict)
