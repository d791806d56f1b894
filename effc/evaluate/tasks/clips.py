"""Tasks on clips: one sentence about all of it, or one word about how something moves.

A clip is read as its frames, one image each, and then the question. Every answer needs several
frames: given the question, all answers are equally likely, and the last frame does not change that
for `clip.direction` and `clip.count`. For `clip.colour-order` it leaves the colours that are there,
one in three. `shortcut` answers from that frame.

Captions are made of words that the clip decides (counts, colours, shapes, directions, speeds) and
of filler that is drawn at random, so a model's own uncertainty is spread over the filler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import perm
from typing import ClassVar

from numpy.random import Generator

from effc.evaluate.tasks.base import IMAGE_WORD, Item, Task, stream
from effc.evaluate.tasks.moving import (
    DIRECTIONS,
    GRID,
    SHAPES,
    SPEEDS,
    Clip,
    Seen,
    draw,
    look,
    paint,
)
from effc.evaluate.tasks.rendering import COLOURS

FRAMES = (8, 16)
COUNTS = ("zero", "one", "two", "three")
MOST = len(COUNTS) - 1  # objects in a clip

VISUAL_WORDS = frozenset((*COLOURS, *SHAPES, *DIRECTIONS, *SPEEDS, *COUNTS))

# Each is drawn with equal odds. Some are longer than others, so that in two good sentences the same
# word may stand in different places, but by so little that no good one is much longer than others.
OPENINGS = ("we see", "the clip shows", "here we find", "this clip has")
NOUNS = ("object", "thing", "figure")
PAUSES = (":", ",", "namely")
ARTICLES = ("a", "some", "this")
VERBS = ("moves", "goes", "travels", "is moving", "is going")
PLACES = ("across the frame", "over the screen", "in the picture")
LINKS = ("then", "and then", "after that", "next")

ORDER = ("first", "second", "last")
DIRECTION_QUESTION = "which way does the {} object move ?"
COUNT_QUESTION = "how many objects move {} ?"
ORDER_QUESTION = "which colour came {} ?"
COLOUR_QUESTION = "which colour moves {} ?"
CAPTION_QUESTION = "describe the clip ."


def visual_words(text: str) -> list[str]:
    """Return the words of a text that the clip decides, in order; the others are filler."""
    return [word for word in text.split() if word in VISUAL_WORDS]


@dataclass(frozen=True)
class Asked:
    """A clip with one question about it, before it is painted."""

    clip: Clip
    question: str
    answer: str
    kind: str = ""

    def item(self) -> Item:
        """Paint the frames."""
        facets = {"frames": str(self.clip.frames), "objects": str(len(self.clip.movers))}
        if self.kind:
            facets["kind"] = self.kind
        return Item(
            context=" ".join([IMAGE_WORD] * self.clip.frames),
            question=self.question,
            answer=self.answer,
            images=tuple(paint(self.clip)),
            facets=facets,
        )


def _items(
    ask: Callable[[Generator, int], Asked], frames: Sequence[int], count: int, seed: int
) -> list[Item]:
    """Draw items; the number of frames goes round, so that each is asked equally often."""
    return [ask(stream(seed, index), frames[index % len(frames)]).item() for index in range(count)]


@dataclass(frozen=True)
class Direction(Task):
    """Where one of one to three objects goes."""

    name: ClassVar[str] = "clip.direction"
    summary: ClassVar[str] = "which way an object of a clip moves"
    chance: ClassVar[float] = 1 / len(DIRECTIONS)

    frames: tuple[int, ...] = FRAMES

    def ask(self, rng: Generator, frames: int) -> Asked:
        """Draw a clip and a question about it."""
        count = int(rng.integers(1, MOST + 1))
        clip = draw(rng, frames, [_direction(rng) for _ in range(count)])
        mover = clip.movers[rng.integers(count)]
        return Asked(clip, DIRECTION_QUESTION.format(mover.colour), mover.direction)

    def items(self, count: int, seed: int) -> list[Item]:
        return _items(self.ask, self.frames, count, seed)

    def shortcut(self, item: Item) -> str:
        """Answer the edge that the object is nearest to in the last frame."""
        return next(
            _heading(seen) for seen in look(item.images[-1]) if seen.colour in item.question
        )


@dataclass(frozen=True)
class Count(Task):
    """How many of three objects go one way; none, one, two and three are equally likely."""

    name: ClassVar[str] = "clip.count"
    summary: ClassVar[str] = "how many objects of a clip move in one direction"
    chance: ClassVar[float] = 1 / len(COUNTS)

    frames: tuple[int, ...] = FRAMES

    def ask(self, rng: Generator, frames: int) -> Asked:
        """Draw a clip and a question about it."""
        asked = _direction(rng)
        others = [direction for direction in DIRECTIONS if direction != asked]
        right = int(rng.integers(len(COUNTS)))
        wanted = [asked] * right + [others[rng.integers(3)] for _ in range(MOST - right)]
        clip = draw(rng, frames, [wanted[place] for place in rng.permutation(MOST)])
        return Asked(clip, COUNT_QUESTION.format(asked), COUNTS[right])

    def items(self, count: int, seed: int) -> list[Item]:
        return _items(self.ask, self.frames, count, seed)

    def shortcut(self, item: Item) -> str:
        """Count the objects that are nearest to that edge in the last frame."""
        seen = look(item.images[-1])
        return COUNTS[sum(_heading(each) in item.question.split() for each in seen)]


@dataclass(frozen=True)
class ColourOrder(Task):
    """Which of three colours came first, second or last, or is the only one to go one way."""

    name: ClassVar[str] = "clip.colour-order"
    summary: ClassVar[str] = "which colour of a clip came first, or moves in one direction"
    chance: ClassVar[float] = 1 / len(COLOURS)

    frames: tuple[int, ...] = FRAMES

    def ask(self, rng: Generator, frames: int) -> Asked:
        """Draw a clip and a question about it."""
        directions = [tuple(DIRECTIONS)[place] for place in rng.permutation(len(DIRECTIONS))]
        # The second and third may go the same way, the first goes alone.
        ways = [directions[0], *(directions[1 + rng.integers(3)] for _ in range(MOST - 1))]
        order = rng.permutation(MOST).tolist()
        clip = draw(rng, frames, [ways[place] for place in order])
        form = int(rng.integers(2 * MOST))
        if form < MOST:
            colour = clip.movers[form].colour
            return Asked(clip, ORDER_QUESTION.format(ORDER[form]), colour, ORDER[form])
        colour = clip.moving(ways[0])[0].colour
        return Asked(clip, COLOUR_QUESTION.format(ways[0]), colour, "direction")

    def items(self, count: int, seed: int) -> list[Item]:
        return _items(self.ask, self.frames, count, seed)

    def shortcut(self, item: Item) -> str:
        """Answer the last frame's object that is nearest to the edge asked for, else its first."""
        seen = look(item.images[-1])
        near = [each for each in seen if _heading(each) in item.question.split()]
        return (near or seen)[0].colour


@dataclass(frozen=True)
class Caption(Task):
    """A sentence about one to three objects, in the order in which they appear.

    Right is a text whose visual words are right and in order; filler may differ.
    """

    name: ClassVar[str] = "clip.caption"
    summary: ClassVar[str] = "a sentence about all that moves in a clip; filler words are free"
    chance: ClassVar[float] = 1 / sum(
        perm(len(COLOURS), count) * (len(SHAPES) * len(DIRECTIONS) * len(SPEEDS)) ** count
        for count in range(1, MOST + 1)
    )

    frames: tuple[int, ...] = FRAMES

    def ask(self, rng: Generator, frames: int) -> Asked:
        """Draw a clip and its caption."""
        count = int(rng.integers(1, MOST + 1))
        clip = draw(rng, frames, [_direction(rng) for _ in range(count)])
        return Asked(clip, CAPTION_QUESTION, caption(clip, rng))

    def items(self, count: int, seed: int) -> list[Item]:
        return _items(self.ask, self.frames, count, seed)

    def shortcut(self, item: Item) -> str:
        """Describe the last frame row by row, with the edges as directions."""
        seen = look(item.images[-1])
        words = (f"{each.colour} {each.shape} {_heading(each)} slowly" for each in seen)
        return " ".join((COUNTS[len(seen)], *words))

    def correct(self, item: Item, text: str) -> bool:
        return visual_words(text) == visual_words(item.answer)


def caption(clip: Clip, rng: Generator) -> str:
    """Describe a clip in one sentence, with filler drawn from the stream."""

    def any_of(phrases: Sequence[str]) -> str:
        return phrases[int(rng.integers(len(phrases)))]

    count = len(clip.movers)
    noun = any_of(NOUNS) + ("" if count == 1 else "s")
    parts = [any_of(OPENINGS), COUNTS[count], noun, any_of(PAUSES)]
    for place, mover in enumerate(clip.movers):
        if place > 0:
            parts.append(any_of(LINKS))
        parts += [any_of(ARTICLES), mover.colour, mover.shape, any_of(VERBS)]
        parts += [mover.direction, mover.speed, any_of(PLACES)]
    return " ".join([*parts, "."])


def words() -> list[str]:
    """Return every word of these tasks once, `<image>` included, in a fixed order."""
    fillers = (*OPENINGS, *NOUNS, *(f"{noun}s" for noun in NOUNS), *PAUSES, *ARTICLES, *VERBS)
    questions = (DIRECTION_QUESTION, COUNT_QUESTION, ORDER_QUESTION, COLOUR_QUESTION)
    asked = " ".join((*questions, CAPTION_QUESTION, *ORDER)).replace("{} ", "")
    texts = (*COLOURS, *SHAPES, *DIRECTIONS, *SPEEDS, *COUNTS, *fillers, *PLACES, *LINKS, asked)
    return [IMAGE_WORD, *dict.fromkeys(" ".join(texts).split())]


def _direction(rng: Generator) -> str:
    return tuple(DIRECTIONS)[rng.integers(len(DIRECTIONS))]


def _heading(seen: Seen) -> str:
    """Guess a direction from one frame: the edge that the object is nearest to."""
    row, column = seen.cell
    last = GRID - 1
    gaps = {"left": column, "right": last - column, "up": row, "down": last - row}
    return min(gaps, key=lambda direction: gaps[direction])
