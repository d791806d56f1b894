"""The score of a model on a task: how many items it answers correctly, and which."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

from effc.evaluate.answering import Answerer
from effc.evaluate.estimates import ratio_of_sums
from effc.evaluate.tasks.base import EVALUATION_SEED, Item, Task
from effc.progress import SILENT, Progress

ITEMS = 200
"""Items of a score unless someone asks for another number."""

_Z = 1.959963984540054
"""The normal quantile of a 95 % interval."""

_GRID = ("length", "place")
_IN_ORDER = ("early", "middle", "late")


@dataclass(frozen=True)
class Score:
    """A share of correct answers.

    Attributes:
        mean: the share.
        stderr: its standard error; None for a single item, 0 where all outcomes are the same.
        n: items.
    """

    mean: float
    stderr: float | None
    n: int

    @staticmethod
    def of(outcomes: Sequence[bool]) -> Score:
        """The score of outcomes, at least one."""
        estimate = ratio_of_sums(outcomes, [1] * len(outcomes))
        return Score(estimate.mean, estimate.stderr, len(outcomes))

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of Wilson (1927), which does not shrink to a point at 0 and 1."""
        p, n, z2 = self.mean, self.n, _Z**2
        middle = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = _Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
        return max(0.0, middle - half), min(1.0, middle + half)


@dataclass(frozen=True)
class Grid:
    """Scores by length of the context and place of what was asked for.

    Attributes:
        lengths: of the rows, ascending.
        places: of the columns, from early to late.
        cells: a score per length and place, None where no item was.
    """

    lengths: tuple[str, ...]
    places: tuple[str, ...]
    cells: tuple[tuple[Score | None, ...], ...]


@dataclass(frozen=True)
class TaskResult:
    """What a model answered to the items of a task.

    Attributes:
        task: the task.
        items: those asked.
        answers: what was said to each.
        correct: whether it was right.
        seconds: that answering took.
    """

    task: Task
    items: tuple[Item, ...]
    answers: tuple[str, ...]
    correct: tuple[bool, ...]
    seconds: float

    @property
    def score(self) -> Score:
        """Over all items."""
        return Score.of(self.correct)

    @property
    def facets(self) -> dict[str, dict[str, Score]]:
        """Facet -> its values -> the score of the items that have this value."""
        split: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
        for item, right in zip(self.items, self.correct, strict=True):
            for name, value in item.facets.items():
                split[name][value].append(right)
        return {
            name: {value: Score.of(values[value]) for value in in_order(values)}
            for name, values in split.items()
        }

    @property
    def grid(self) -> Grid | None:
        """Length by place, None for a task whose items do not have both."""
        if not all(set(_GRID) <= set(item.facets) for item in self.items):
            return None
        cells: dict[tuple[str, ...], list[bool]] = defaultdict(list)
        for item, right in zip(self.items, self.correct, strict=True):
            cells[tuple(item.facets[name] for name in _GRID)].append(right)
        lengths, places = (in_order({cell[i] for cell in cells}) for i in (0, 1))
        rows = (
            tuple(Score.of(cells[n, p]) if (n, p) in cells else None for p in places)
            for n in lengths
        )
        return Grid(lengths, places, tuple(rows))

    @property
    def wrong(self) -> list[int]:
        """The items that were answered wrongly."""
        return [index for index, right in enumerate(self.correct) if not right]


@dataclass(frozen=True)
class Shortcut:
    """Answers as the task's obvious shortcut would."""

    task: Task

    def answer(
        self, items: Sequence[Item], max_new_tokens: int | None = None, progress: Progress = SILENT
    ) -> list[str]:
        """See `effc.evaluate.answering.Answerer.answer`."""
        return [self.task.shortcut(item) for item in items]


def run_task(
    task: Task,
    answerer: Answerer,
    count: int = ITEMS,
    seed: int = EVALUATION_SEED,
    progress: Progress = SILENT,
) -> TaskResult:
    """Let someone answer the first items of a seed.

    Raises:
        EffcError: E0414, the items mean nothing to the model.
    """
    items = task.items(count, seed)
    started = perf_counter()
    answers = answerer.answer(items, progress=progress)
    seconds = perf_counter() - started
    correct = tuple(task.correct(i, text) for i, text in zip(items, answers, strict=True))
    return TaskResult(task, tuple(items), tuple(answers), correct, seconds)


def in_order(values: Mapping[str, object] | set[str]) -> tuple[str, ...]:
    """Values of a facet: numbers by size, places from early to late, other words by letter."""

    def key(value: str) -> tuple[int, float, str]:
        if value in _IN_ORDER:
            return 0, _IN_ORDER.index(value), value
        try:
            return 1, float(value), value
        except ValueError:
            return 2, 0.0, value

    return tuple(sorted(values, key=key))
