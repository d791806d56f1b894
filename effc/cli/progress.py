"""How the command line shows long work: a bar on a terminal, plain lines elsewhere.

What is being done goes to stderr, results go to stdout.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from effc.cli.verdicts import VerdictTable
from effc.cost.text import bytes_text
from effc.progress import Progress

if TYPE_CHECKING:
    from effc.ir.manager import Verdict

EVERY = 5.0
"""Seconds between two plain lines of one step."""

_NAME_WIDTH = 48


def peak_memory() -> int:
    """Most bytes of memory that this process has held at once."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class ShownProgress(Progress):
    """Prints results; its subclasses also say what is being done."""

    def __init__(self, table: VerdictTable) -> None:
        self._table = table

    def line(self, text: str) -> None:
        """Print a result."""
        print(text, flush=True)

    def verdict(self, verdict: Verdict) -> None:
        """Print a pass's line of the table."""
        for text in self._table.lines(verdict):
            self.line(text)


class PlainProgress(ShownProgress):
    """A line per step, and for long steps a line every few seconds.

    Args:
        table: where verdicts get their columns from.
        clock: seconds, for the estimates.
    """

    def __init__(self, table: VerdictTable, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(table)
        self._clock = clock
        self._step = ""
        self._began = self._said = clock()
        self._first: int | None = None

    def step(self, name: str, detail: str = "") -> None:
        """Print what begins."""
        self._step, self._first = name, None
        self._began = self._said = self._clock()
        print(f"{name} {detail}".rstrip(), file=sys.stderr, flush=True)

    def advance(self, name: str, done: int, total: int) -> None:
        """Print how far it is, if the last line is old enough."""
        now = self._clock()
        if self._first is None:
            self._began, self._first = now, done
        if now - self._said < EVERY or not total:
            return
        self._said = now
        left = _time_left(now - self._began, done - self._first, total - done)
        print(f"  {self._step}: {done / total:.0%}{left} ({name})", file=sys.stderr, flush=True)


def _time_left(seconds: float, done: int, left: int) -> str:
    """What the speed so far promises; nothing before something is done."""
    return f", {seconds * left / done:.0f} s left" if done > 0 else ""


@contextmanager
def shown_progress(table: VerdictTable, *, quiet: bool) -> Iterator[Progress]:
    """What shows the work of the block.

    Args:
        table: where verdicts get their columns from.
        quiet: show nothing.
    """
    if quiet:
        yield Progress()
    elif sys.stderr.isatty():
        with _bar(table) as progress:
            yield progress
    else:
        yield PlainProgress(table)


@contextmanager
def _bar(table: VerdictTable) -> Iterator[Progress]:
    """One line at the bottom of the terminal: step, share, times, memory."""
    from rich import progress as rich_progress
    from rich.console import Console
    from rich.text import Text

    class Memory(rich_progress.ProgressColumn):
        """The most memory held so far."""

        def render(self, task: Any) -> Text:
            return Text(f"peak {bytes_text(peak_memory())}")

    columns = (
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(),
        rich_progress.TaskProgressColumn(),
        rich_progress.TimeElapsedColumn(),
        rich_progress.TextColumn("left"),
        rich_progress.TimeRemainingColumn(),
        Memory(),
    )
    console = Console(stderr=True)
    with rich_progress.Progress(
        *columns, console=console, transient=True, redirect_stdout=False
    ) as bar:
        task = bar.add_task("starting", total=None)

        class Bar(ShownProgress):
            """Keeps the line up to date, and prints results above it."""

            step_name = ""

            def step(self, name: str, detail: str = "") -> None:
                self.step_name = name
                bar.reset(task, total=None, description=f"{name} {detail}".rstrip())

            def advance(self, name: str, done: int, total: int) -> None:
                description = f"{self.step_name}: {name[-_NAME_WIDTH:]}"
                bar.update(task, description=description, completed=done, total=total)

            def line(self, text: str) -> None:
                if sys.stdout.isatty():
                    console.print(text, markup=False, highlight=False, soft_wrap=True)
                else:
                    super().line(text)

        yield Bar(table)
