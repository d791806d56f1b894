"""Watching rewrites as they happen: `EFFC_TRACE` and `EFFC_PRINT=rewrites`.

    journal = Journal(observers=rewrite_observers(settings()))

Nothing but observers of the journal: a compilation does the same with and without them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from effc.diagnostics import EffcError
from effc.ir.journal import Change, Observer
from effc.settings import Settings


def rewrite_observers(chosen: Settings) -> tuple[Observer, ...]:
    """The observers that the settings ask for."""
    observers: list[Observer] = []
    if chosen.trace:
        observers.append(TraceFile(Path(chosen.trace)))
    if chosen.print == "rewrites":
        observers.append(print_rewrite)
    return tuple(observers)


def print_rewrite(number: int, change: Change) -> None:
    """One line on stderr."""
    detail = f": {change.detail}" if change.detail else ""
    place = f"{change.stage}.{change.node}"
    sys.stderr.write(f"{number:>6} {change.made_by}: {change.kind} {place}{detail}\n")


class TraceFile:
    """Appends every change to a file as a JSON line.

    Appending keeps all compilations of a process, and of several; each numbers from 1. The file
    is opened anew for each line, so that a killed compilation leaves all it did.

    Args:
        path: the file; its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, number: int, change: Change) -> None:
        """Append one change.

        Raises:
            EffcError: E0103, the file cannot be written.
        """
        entry = {
            "n": number,
            "pass": change.made_by,
            "stage": change.stage,
            "kind": change.kind,
            "node": change.node,
            "detail": change.detail,
        }
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise EffcError(
                "E0103",
                f"the trace cannot be written: {error.strerror or error}",
                where=str(self.path),
                help="set EFFC_TRACE to a file in a folder that exists and can be written",
            ) from error
