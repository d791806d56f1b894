"""Worked solutions: every step of a trace knows which earlier steps it rests on.

Traces show the reflection of reasoning models: checks that catch a planted error, checks of steps
that were right, and repeated checks of a settled result. Whoever writes a trace says what each
step rests on, so its dependency graph is known, not guessed.

    s3 a += b : 3 + 5 gives a 0 ;        an error: 3 + 5 is 1 modulo 7
    check s3 3 + 5 gives 1 wrong ;       a useful check: the same computed again, and compared
    s3 a += b : 3 + 5 gives a 1 ;        the correction
    check s3 3 + 5 gives 1 ok ;          a useless check
    ...
    end a 1 b 5 c 2 d 0 ;                the result
    verify a 1 b 5 c 2 d 0 ok ;          a final check, often repeated
    answer a 1 b 5 c 2 d 0               what is scored
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from numpy.random import Generator

Kind = Literal["progress", "useful-check", "useless-check", "final-check", "error"]


@dataclass(frozen=True)
class Step:
    """One step of a trace.

    Attributes:
        text: Its words.
        kind: Its role. A progress step moves the solution forward, an error is a progress step
            with a wrong outcome, and the three kinds of checks look back.
        depends_on: Indices of the earlier steps whose outcome it uses, ascending. What a step
            reads in the problem itself is no step and is not listed.
    """

    text: str
    kind: Kind
    depends_on: tuple[int, ...]


@dataclass(frozen=True)
class Trace:
    """A worked solution: steps in the order of the text, the answer last."""

    steps: tuple[Step, ...]

    @property
    def text(self) -> str:
        return " ".join(step.text for step in self.steps)


@dataclass(frozen=True)
class Habit:
    """How a trace reflects.

    Attributes:
        errors: Chance in percent that a step goes wrong at first; it is always caught.
        checks: Chance in percent that a right step is checked.
        final_checks: How often the result is verified.
    """

    errors: int = 0
    checks: int = 0
    final_checks: int = 0


def draw_habit(rng: Generator) -> Habit:
    """Draw a habit, from a terse one to one that checks every step.

    Most traces check more than they need to and verify their result twice, so a model that
    imitates them overthinks when it decodes greedily, as reasoning models do.
    """
    checks = (0, 60, 80, 100)[rng.integers(4)]
    final_checks = (0, 1, 2, 2, 3)[rng.integers(5)]
    return Habit(errors=6, checks=checks, final_checks=final_checks)


class Narrator:
    """Writes the steps of one trace."""

    def __init__(self, habit: Habit, rng: Generator) -> None:
        self.habit = habit
        self.rng = rng
        self.steps: list[Step] = []

    def say(self, text: str, kind: Kind, *depends_on: int) -> int:
        """Write a step and return its index."""
        self.steps.append(Step(text, kind, tuple(sorted(set(depends_on)))))
        return len(self.steps) - 1

    def work(self, right: str, wrong: str, check: str, *depends_on: int) -> int:
        """Write a progress step, perhaps after a caught error, perhaps with a check.

        Args:
            right: The step.
            wrong: The same step with a wrong outcome.
            check: The outcome computed again, without the verdict.
            depends_on: What the step rests on.

        Returns:
            The index of the step that is right.
        """
        if self.rng.integers(100) < self.habit.errors:
            error = self.say(wrong, "error", *depends_on)
            depends_on = (*depends_on, self.say(f"{check} wrong ;", "useful-check", error))
        index = self.say(right, "progress", *depends_on)
        if self.rng.integers(100) < self.habit.checks:
            self.say(f"{check} ok ;", "useless-check", index)
        return index

    def close(self, result: str, final: str, *depends_on: int) -> Trace:
        """Write the result, verify it, and answer.

        Args:
            result: The step that puts the result together.
            final: The final state alone.
            depends_on: What the result rests on.
        """
        settled = self.say(result, "progress", *depends_on)
        for _ in range(self.habit.final_checks):
            self.say(f"verify {final} ok ;", "final-check", settled)
        self.say(f"answer {final}", "progress", settled)
        return Trace(tuple(self.steps))
