"""The journal: what every pass did, in order.

The rewriter is the only mutator and reports each change here, so printing, dumping, timing and
explaining hang off one record. "Modified" is read from it, never declared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Change:
    """One mutation of a graph.

    Attributes:
        made_by: the pass.
        stage: the stage of the program.
        kind: "insert", "replace", "erase", "argument", "input", "output", "weight".
        node: the node or weight concerned.
        detail: what replaced it, or what it computes.
    """

    made_by: str
    stage: str
    kind: str
    node: str
    detail: str = ""


@dataclass(frozen=True)
class NearMiss:
    """A place where a rule almost matched, and the first thing that differed."""

    rule: str
    stage: str
    node: str
    reason: str


Observer = Callable[[int, Change], None]
"""Called with the number of a change, from 1 on, and the change, as it happens."""


@dataclass
class Journal:
    """All changes and near misses of a compilation.

    Attributes:
        changes: in order.
        misses: in order.
        observers: told of every change at once, for traces.
    """

    changes: list[Change] = field(default_factory=list)
    misses: list[NearMiss] = field(default_factory=list)
    observers: tuple[Observer, ...] = ()

    def record(self, change: Change) -> None:
        """Append one change."""
        self.changes.append(change)
        for observer in self.observers:
            observer(len(self.changes), change)

    def miss(self, miss: NearMiss) -> None:
        """Append one near miss."""
        self.misses.append(miss)

    def by(self, made_by: str) -> list[Change]:
        """The changes of one pass."""
        return [change for change in self.changes if change.made_by == made_by]
