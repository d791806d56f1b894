"""The pass manager: order from declarations, verification between passes, one verdict each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import networkx as nx

from effc.diagnostics import EffcError, PassError
from effc.ir.journal import Journal
from effc.ir.passbase import Pass, PassResult, PassStage, read_bytes
from effc.ir.program import Program
from effc.ir.verify import verify

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verdict:
    """One line of the compiler's account.

    Attributes:
        kl: nats per token that the pass alone costs; None where nothing was measured.
    """

    pass_name: str
    matched: int
    applied: int
    skipped: int
    bytes_before: int
    bytes_after: int
    seconds: float
    status: str
    detail: str = ""
    kl: float | None = None


def order(passes: Iterable[Pass]) -> list[Pass]:
    """Sort passes by stage, then by `after`, then as given.

    Raises:
        PassError: E0402 names the passes of a cycle, E0403 two that exclude one another.
    """
    given = list(passes)
    _refuse_conflicts(given)
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(range(len(given)))
    for i, later in enumerate(given):
        for j, earlier in enumerate(given):
            if earlier.stage < later.stage or earlier.name in later.after:
                graph.add_edge(j, i)
    try:
        return [given[i] for i in nx.lexicographical_topological_sort(graph)]
    except nx.NetworkXUnfeasible:
        cycle = " -> ".join(given[i].name for i, _ in nx.find_cycle(graph))
        raise PassError(
            "E0402",
            f"passes wait for one another: {cycle}",
            help="remove one of their 'after' declarations, or move one to another stage",
        ) from None


def _refuse_conflicts(passes: Sequence[Pass]) -> None:
    names = {p.name for p in passes}
    for p in passes:
        for other, reason in p.conflicts.items():
            if other in names:
                raise PassError(
                    "E0403",
                    f"{p.name!r} and {other!r} exclude one another: {reason}",
                    help="keep one of them",
                )


@dataclass
class PassManager:
    """Runs passes over a program.

    Attributes:
        passes: in any order.
        observe: called after each pass with (pass, program, result): printing, dumping, progress.
        check: 0 never verify, 1 verify after each stage of passes, 2 after each pass with types.
        stop_after: once the journal holds this many changes, passes that can be left out are: to
            find a wrong rewrite by bisection.
    """

    passes: Sequence[Pass]
    observe: Callable[[Pass, Program, PassResult], None] | None = None
    check: int = 1
    stop_after: int | None = None

    def run(self, program: Program, journal: Journal) -> list[Verdict]:
        """Run all passes in order and return one verdict per pass."""
        verdicts = []
        ordered = order(self.passes)
        for p, following in zip(ordered, [*ordered, None][1:], strict=True):
            result = None if self._is_left_out(p, journal) else p(program, journal)
            stage_ends = following is None or following.stage != p.stage
            if self.check > 1 or (self.check and stage_ends):
                self._verify(p, program)
            if result is None:
                log.warning("pass %s is left out: EFFC_STOP_AFTER=%d", p.name, self.stop_after)
                verdicts.append(_left_out(p, program, len(journal.changes)))
                continue
            if self.observe is not None:
                self.observe(p, program, result)
            verdicts.append(verdict_of(p, result))
        return verdicts

    def _is_left_out(self, p: Pass, journal: Journal) -> bool:
        """Passes of the canonical form change nothing but rounding: a program can do without."""
        stopped = self.stop_after is not None and len(journal.changes) >= self.stop_after
        return stopped and p.stage <= PassStage.RAISE

    def _verify(self, p: Pass, program: Program) -> None:
        try:
            verify(program, types=self.check > 1)
        except EffcError as error:
            raise PassError("E0404", f"pass {p.name!r} left an illegal program: {error}") from error


def _left_out(p: Pass, program: Program, changes: int) -> Verdict:
    size = read_bytes(program)
    return Verdict(
        p.name, 0, 0, 0, size, size, 0.0, "left out", f"stopped after {changes} rewrites"
    )


def verdict_of(p: Pass, result: PassResult) -> Verdict:
    """Condense a result into one line."""
    skipped = [o for o in result.outcomes if o.status != "applied"]
    reasons = dict.fromkeys(o.reason for o in skipped if o.reason)
    return Verdict(
        p.name,
        len(result.outcomes),
        result.count("applied"),
        len(skipped),
        result.bytes_before,
        result.bytes_after,
        result.seconds,
        "changed" if result.modified else "no change",
        "; ".join(reasons),
    )
