"""Tasks that are answered by thinking aloud: arithmetic with carried state, and stack traces.

A model reads a problem, writes a trace, and is judged by the final state alone: what stands after
the last `answer`. How it got there, and how often it checked itself, is its own business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from numpy.random import Generator

from effc.evaluate.tasks.base import Item, Task, stream
from effc.evaluate.tasks.programs import (
    MAX_STEPS,
    MODULUS,
    OPERATORS,
    VARIABLES,
    Program,
    draw_program,
    solve_program,
)
from effc.evaluate.tasks.traces import Habit, Trace
from effc.evaluate.tasks.trees import MAX_DEPTH, NODES, NONE, Tree, draw_tree, search_tree

WORDS = (
    *map(str, range(MAX_DEPTH + 1)),
    *NODES,
    *(f"s{number}" for number in range(1, MAX_STEPS + 1)),
    *OPERATORS,
    *(f"{operator}=" for operator in OPERATORS),
    *("run", "gives", "end", "root", "until", "found", "enter", "leave", NONE),
    *("check", "ok", "wrong", "verify", "answer", ":", ",", ";"),
)
"""Every word of the problems and traces."""

SIZES = (4, 8, 12, 16)
DETOURS = 10

# The reference shows all kinds of reflection and is about the longest solution that a model
# trained on such traces gives, so a limit of new tokens can be read off it.
REFERENCE = Habit(errors=6, checks=100, final_checks=3)


@dataclass(frozen=True)
class Worked:
    """A problem with a solution: the problem's parts are those of an item."""

    context: str
    question: str
    trace: Trace


def work_program(rng: Generator, steps: int, habit: Habit) -> Worked:
    """Draw a program of `steps` statements and carry it out."""
    program = draw_program(rng, steps)
    return Worked(program.text, "run", solve_program(program, habit, rng))


def work_tree(rng: Generator, depth: int, detours: int, habit: Habit) -> Worked:
    """Draw a tree with a target at `depth` and `detours` nodes off its path, and search it."""
    tree, target = draw_tree(rng, depth, detours)
    return Worked(tree.text, f"until {target} found", search_tree(tree, target, habit, rng))


def final_state(text: str) -> str:
    """Return what stands after the last `answer` of a text, or nothing where it gives none."""
    words = text.split()
    if "answer" not in words:
        return ""
    last = len(words) - 1 - words[::-1].index("answer")
    return " ".join(words[last + 1 :])


@dataclass(frozen=True)
class Arithmetic(Task):
    """Carry out 4 to 16 updates of four variables modulo 7, and give all of them.

    Updates can be undone, so without the initial values every final state is equally likely.
    """

    name: ClassVar[str] = "reason.arithmetic"
    summary: ClassVar[str] = "run a program of 4 to 16 updates modulo 7, step by step"
    chance: ClassVar[float] = MODULUS ** -len(VARIABLES)

    def items(self, count: int, seed: int) -> list[Item]:
        """Return items whose numbers of steps take turns; the answer is a whole trace."""
        return [self._item(stream(seed, index), SIZES[index % 4]) for index in range(count)]

    def shortcut(self, item: Item) -> str:
        """Carry out the last two statements only, on the initial values."""
        program = Program.parse(item.context)
        return f"answer {program.run(first=len(program.statements) - 2)}"

    def correct(self, item: Item, text: str) -> bool:
        """Compare the final states; the way there does not count."""
        return final_state(text) == final_state(item.answer)

    def _item(self, rng: Generator, steps: int) -> Item:
        worked = work_program(rng, steps, REFERENCE)
        facets = {"steps": str(steps)}
        return Item(worked.context, worked.question, worked.trace.text, facets=facets)


@dataclass(frozen=True)
class Stack(Task):
    """Search a tree depth first for a node, and give the stack of nodes when it is found.

    The stack is as deep as the facet says, 4 to 16; ten more nodes lie off the path.
    """

    name: ClassVar[str] = "reason.stack"
    summary: ClassVar[str] = "search a tree depth first and give the stack, 4 to 16 nodes deep"
    # One guess among the stacks of all nodes.
    chance: ClassVar[float] = sum(1 / (depth + DETOURS) for depth in SIZES) / len(SIZES)

    def items(self, count: int, seed: int) -> list[Item]:
        """Return items whose depths take turns; the answer is a whole trace."""
        return [self._item(stream(seed, index), SIZES[index % 4]) for index in range(count)]

    def shortcut(self, item: Item) -> str:
        """Descend without ever turning back, always to the first child."""
        tree = Tree.parse(item.context)
        target = item.question.split()[1]
        stack = [tree.root]
        while stack[-1] != target and tree.children[stack[-1]]:
            stack.append(tree.children[stack[-1]][0])
        return " ".join(["answer", *stack])

    def correct(self, item: Item, text: str) -> bool:
        """Compare the final stacks; the way there does not count."""
        return final_state(text) == final_state(item.answer)

    def _item(self, rng: Generator, depth: int) -> Item:
        worked = work_tree(rng, depth, DETOURS, REFERENCE)
        facets = {"depth": str(depth)}
        return Item(worked.context, worked.question, worked.trace.text, facets=facets)
