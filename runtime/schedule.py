"""Periodic work on the cache, as the program's schedule asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from effc.diagnostics import GenerationError
from effc.ir.program import Program, RetentionGroup, ScheduleEntry


@dataclass(frozen=True)
class Eviction:
    """Dropping the pages of a group that lie wholly before its window.

    Attributes:
        group: indexed, with a window.
        every: act when the confirmed length is a multiple of this; None acts after each step,
            which is right only where attention could not see the dropped tokens anyway.
    """

    group: RetentionGroup
    every: int | None = None

    def due(self, length: int) -> bool:
        """Whether to act on a sequence of `length` confirmed tokens."""
        return self.every is None or length % self.every == 0


def evictions(program: Program) -> tuple[Eviction, ...]:
    """The evictions of a schedule.

    Raises:
        GenerationError: E0704, the schedule asks for work that this engine does not know.
    """
    return tuple(_eviction(program, entry) for entry in program.schedule)


def room(scheduled: Sequence[Eviction], length: int) -> int | None:
    """How many tokens may follow `length` confirmed ones before work is due; None: any number.

    Work happens at fixed token counts, or the same text would be treated differently when it
    comes one token at a time and when it comes as a draft. So no step may reach past a count.
    """
    counts = [e.every - length % e.every for e in scheduled if e.every is not None]
    return min(counts, default=None)


def _eviction(program: Program, entry: ScheduleEntry) -> Eviction:
    every = entry.arguments.get("tokens")
    known = (entry.when == "each_step" and every is None) or (
        entry.when == "every" and isinstance(every, int) and every > 0
    )
    if entry.action != "evict_window" or not known:
        raise GenerationError(
            "E0704",
            f"the schedule asks for {entry.action!r} {entry.when!r}, which this engine does not "
            "know; it knows 'evict_window', 'each_step' or 'every' so many tokens",
            where=program.info.source,
            help="run it with the version of effc that compiled it",
        )
    group = next((g for g in program.groups if g.name == entry.arguments.get("group")), None)
    if group is None or group.window is None or not group.indexed:
        raise GenerationError(
            "E0704",
            f"the schedule evicts by window from {entry.arguments.get('group')!r}, which is no "
            "retention group with a window and an index",
            where=program.info.source,
            help="groups: " + (", ".join(g.name for g in program.groups) or "none"),
        )
    return Eviction(group, every if entry.when == "every" else None)
