"""Periodic work on the cache, as the program's schedule asks for it."""

from __future__ import annotations

from effc.diagnostics import GenerationError
from effc.ir.program import Program, RetentionGroup, ScheduleEntry


def evicted_groups(program: Program) -> tuple[RetentionGroup, ...]:
    """The retention groups whose old tokens are dropped after each step.

    Raises:
        GenerationError: E0704, the schedule asks for work that this engine does not know.
    """
    return tuple(_evicted_group(program, entry) for entry in program.schedule)


def _evicted_group(program: Program, entry: ScheduleEntry) -> RetentionGroup:
    if (entry.when, entry.action) != ("each_step", "evict_window"):
        raise GenerationError(
            "E0704",
            f"the schedule asks for {entry.action!r} {entry.when!r}, which this engine does not "
            "know; it knows 'evict_window' 'each_step'",
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
    return group
