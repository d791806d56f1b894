"""The compiler's account: one line per pass in fixed columns, and one warning for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from effc.cost.text import bytes_text

if TYPE_CHECKING:
    from effc.ir.manager import Verdict

# Column -> its width; counts and sizes stand at the right of their column.
_COLUMNS: dict[str, int] = {
    "pass": 22,
    "matched": 7,
    "applied": 7,
    "skipped": 7,
    "bytes": 22,
    "time": 8,
    "KL": 7,
    "status": 9,
    "detail": 0,
}
_RIGHT = ("matched", "applied", "skipped", "bytes", "time", "KL")


class VerdictTable:
    """Lines that can appear one after the other: no width depends on what is still to come.

    Attributes:
        shown: the verdicts that have a line.
    """

    def __init__(self) -> None:
        self.shown: list[Verdict] = []

    def lines(self, verdict: Verdict) -> list[str]:
        """The line of a verdict, below the header if it is the first."""
        header = [] if self.shown else [_row(list(_COLUMNS))]
        self.shown.append(verdict)
        return [*header, _row(_cells(verdict))]

    def missing(self, verdicts: Iterable[Verdict]) -> list[str]:
        """The lines of the verdicts that have none yet."""
        return [line for v in verdicts if v not in self.shown for line in self.lines(v)]


def _row(cells: Sequence[str]) -> str:
    columns = zip(_COLUMNS.items(), cells, strict=True)
    return "  ".join(
        cell.rjust(width) if name in _RIGHT else cell.ljust(width)
        for (name, width), cell in columns
    ).rstrip()


def _cells(verdict: Verdict) -> list[str]:
    before, after = verdict.bytes_before, verdict.bytes_after
    return [
        verdict.pass_name,
        str(verdict.matched),
        str(verdict.applied),
        str(verdict.skipped),
        f"{bytes_text(before)} -> {bytes_text(after)}" if before != after else "-",
        f"{verdict.seconds:.2f} s",
        "-" if verdict.kl is None else f"{verdict.kl:.4f}",
        verdict.status,
        verdict.detail,
    ]


def summary_warning(verdicts: Iterable[Verdict]) -> str | None:
    """One line about all places that were not rewritten, None if there are none."""
    left = [verdict for verdict in verdicts if verdict.skipped]
    if not left:
        return None
    count, matched = sum(v.skipped for v in left), sum(v.matched for v in left)
    reasons = "; ".join(f"{v.pass_name}: {v.detail or 'no reason given'}" for v in left)
    return f"warning: {count} of {matched} places were left as they are ({reasons})"
