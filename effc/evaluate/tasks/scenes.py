"""Questions about pictures: attributes, numbers, relations, rows of digits, existence, two images.

Whatever the question, its possible answers are equally likely given its words, so a model that does
not look at the picture is left with chance.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from effc.evaluate.tasks.base import IMAGE_WORD, Item, Task, stream
from effc.evaluate.tasks.layout import (
    CELL,
    LARGE,
    ROW_LENGTHS,
    Scene,
    Thing,
    crowd,
    distinct_scene,
    two_rows,
)
from effc.evaluate.tasks.rendering import COLOURS, DIGITS, SHAPES

PLURALS = {shape: f"{shape}es" if shape.endswith("s") else f"{shape}s" for shape in SHAPES}
LARGEST_COUNT = 4
PLACES = ("first", "second")
ATTRIBUTES = ("colour", "shape", "digit")

WORDS = (
    IMAGE_WORD, *PLACES, "in", "image", "the", "is", "are", "there", "a", "or", "of", "on", "which",
    "what", "colour", "shape", "digit", "how", "many", "read", "digits",
    "left", "right", "above", "below", "larger", "yes", "no",
    *COLOURS, *SHAPES, *PLURALS.values(), *DIGITS,
)  # fmt: skip
"""Every word of questions and answers."""


@dataclass(frozen=True)
class Query:
    """A question about a scene; `asks` is its kind."""

    question: str
    answer: str
    asks: str


def attribute_queries(scene: Scene, rng: np.random.Generator) -> list[Query]:
    """Ask for colour, shape and digit of every thing of a distinct scene."""
    return _take_turns([_attributes(scene, asks) for asks in ATTRIBUTES], rng)


def relation_queries(scene: Scene, rng: np.random.Generator) -> list[Query]:
    """Compare all pairs of a distinct scene: columns, rows and sizes, kinds taking turns.

    Positions are compared only if they lie in different columns or rows of the coarse grid.
    """
    columns, rows, sizes = [], [], []
    for one in scene.things:
        for other in scene.things:
            pair = f"is the {one.shape}", f"the {other.shape}"
            if abs(one.column - other.column) >= CELL - 1:
                answer = "left" if one.column < other.column else "right"
                columns.append(Query(f"{pair[0]} left or right of {pair[1]}", answer, "column"))
            if abs(one.row - other.row) >= CELL - 1:
                answer = "above" if one.row < other.row else "below"
                rows.append(Query(f"{pair[0]} above or below {pair[1]}", answer, "row"))
            if one.radius != other.radius:
                answer = one.shape if one.radius == LARGE else other.shape
                question = f"which is larger the {one.shape} or the {other.shape}"
                sizes.append(Query(question, answer, "size"))
    return _take_turns([group for group in (columns, rows, sizes) if group], rng)


def existence_queries(scene: Scene, rng: np.random.Generator) -> list[Query]:
    """Ask for pairs of a shape and a colour that are both there, on one thing or on two."""
    there, not_there = [], []
    for one in scene.things:
        for other in scene.things:
            question = f"is there a {one.colour} {other.shape}"
            if one is other:
                there.append(Query(question, "yes", "there"))
            else:
                not_there.append(Query(question, "no", "not there"))
    return _take_turns([there, not_there], rng)


def row_queries(scene: Scene, rng: np.random.Generator) -> list[Query]:
    """Ask to read each row of digits."""
    colours = list(dict.fromkeys(thing.colour for thing in scene.things))
    queries = []
    for colour in (colours[index] for index in rng.permutation(len(colours))):
        digits = [thing.shape for thing in scene.things if thing.colour == colour]
        queries.append(Query(f"read the digits in {colour}", " ".join(digits), str(len(digits))))
    return queries


def count_queries(scene: Scene, target: str, rng: np.random.Generator) -> list[Query]:
    """Ask how many things have the shape or colour `target`, then for other shapes and colours.

    Kinds of equal count form a group and groups take turns, so that the other answers are spread.
    """
    groups: dict[int, list[Query]] = {}
    for kind in (*COLOURS, *SHAPES):
        count = sum(kind in (thing.shape, thing.colour) for thing in scene.things)
        asks = "shape" if kind in SHAPES else "colour"
        query = Query(f"how many are {PLURALS.get(kind, kind)}", str(count), asks)
        if kind == target:
            first = query
        elif count <= LARGEST_COUNT:
            groups.setdefault(count, []).append(query)
    return [first, *_take_turns(list(groups.values()), rng)]


def image_queries(scenes: Sequence[Scene], rng: np.random.Generator) -> list[Query]:
    """Ask for attributes in the first or second image where the other has another answer."""
    groups: list[list[Query]] = [[], [], []]
    for group, asks in zip(groups, ATTRIBUTES, strict=True):
        one, two = (
            {query.question: query.answer for query in _attributes(scene, asks)} for scene in scenes
        )
        for question in (question for question in one if question in two):
            if one[question] == two[question]:
                continue
            for place, answers in zip(PLACES, (one, two), strict=True):
                asked = f"in the {place} image {question}"
                group.append(Query(asked, answers[question], asks))
    return _take_turns([group for group in groups if group], rng)


def counted_scene(rng: np.random.Generator) -> tuple[Scene, str]:
    """Draw a shape or colour, how often it occurs, and a scene with other things beside these."""
    target = str(rng.choice((*COLOURS, *SHAPES)))
    count, others = int(rng.integers(LARGEST_COUNT + 1)), int(rng.integers(1, LARGEST_COUNT + 1))
    shapes, colours = list(SHAPES), list(COLOURS)
    asked, free = (shapes, colours) if target in SHAPES else (colours, shapes)
    asked.remove(target)
    kinds = [(target, str(rng.choice(free))) for _ in range(count)]
    kinds += [(str(rng.choice(asked)), str(rng.choice(free))) for _ in range(others)]
    if target in COLOURS:
        kinds = [(shape, colour) for colour, shape in kinds]
    return crowd(rng, kinds), target


def _attributes(scene: Scene, asks: str) -> list[Query]:
    return [_attribute(thing, asks) for thing in scene.things]


def _attribute(thing: Thing, asks: str) -> Query:
    if asks == "colour":
        return Query(f"what colour is the {thing.shape}", thing.colour, asks)
    if asks == "shape":
        return Query(f"what shape is {thing.colour}", thing.shape, asks)
    return Query(f"what digit is on the {thing.shape}", thing.digit, asks)


def _take_turns(groups: list[list[Query]], rng: np.random.Generator) -> list[Query]:
    """Shuffle each group and the groups, then take one query of each in turn.

    The first query is therefore of each group with equal chance, however large the groups are.
    """
    shuffled = [[group[index] for index in rng.permutation(len(group))] for group in groups]
    shuffled = [shuffled[index] for index in rng.permutation(len(shuffled))]
    longest = max(map(len, shuffled), default=0)
    return [group[turn] for turn in range(longest) for group in shuffled if turn < len(group)]


class SceneTask(Task):
    """One question about the images of a context; tasks say which scenes and which queries."""

    context: ClassVar[str] = IMAGE_WORD
    guesses: ClassVar[Mapping[str, str]]
    """For each kind of question an answer that is as likely as any other."""

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> tuple[list[Scene], list[Query]]:
        """Draw scenes and queries about them, of which the first is fair to take alone."""
        ...

    def items(self, count: int, seed: int) -> list[Item]:
        """Draw each item's scenes from a stream of its own and ask the first query."""
        return [self._item(stream(seed, index)) for index in range(count)]

    def shortcut(self, item: Item) -> str:
        """Answer from the question alone."""
        return self.guesses[item.facets["asks"]]

    def _item(self, rng: np.random.Generator) -> Item:
        scenes, queries = self.draw(rng)
        query = queries[0]
        images = tuple(scene.draw() for scene in scenes)
        facets = {"asks": query.asks}
        return Item(self.context, query.question, query.answer, images, facets)


_ATTRIBUTE_GUESSES = {"colour": "red", "shape": "circle", "digit": "0"}
_ATTRIBUTE_CHANCE = (1 / len(COLOURS) + 1 / len(SHAPES) + 1 / len(DIGITS)) / len(ATTRIBUTES)


@dataclass(frozen=True)
class Attribute(SceneTask):
    """Colour, shape or digit of the one thing that has a given shape or colour."""

    name: ClassVar[str] = "scene.attribute"
    summary: ClassVar[str] = "colour, shape or digit of one of several things in a picture"
    chance: ClassVar[float] = _ATTRIBUTE_CHANCE
    guesses: ClassVar[Mapping[str, str]] = _ATTRIBUTE_GUESSES

    def draw(self, rng: np.random.Generator) -> tuple[list[Scene], list[Query]]:
        scene = distinct_scene(rng)
        return [scene], attribute_queries(scene, rng)


@dataclass(frozen=True)
class Count(SceneTask):
    """How many things of up to eight have a given shape or colour: 0 to 4."""

    name: ClassVar[str] = "scene.count"
    summary: ClassVar[str] = "how many things have a given shape or colour"
    chance: ClassVar[float] = 1 / (LARGEST_COUNT + 1)
    guesses: ClassVar[Mapping[str, str]] = {"shape": "2", "colour": "2"}

    def draw(self, rng: np.random.Generator) -> tuple[list[Scene], list[Query]]:
        scene, target = counted_scene(rng)
        return [scene], count_queries(scene, target, rng)


@dataclass(frozen=True)
class Relation(SceneTask):
    """Which of two things is further left, further up, or larger."""

    name: ClassVar[str] = "scene.relation"
    summary: ClassVar[str] = "left or right, above or below, which of two is larger"
    chance: ClassVar[float] = 1 / 2
    guesses: ClassVar[Mapping[str, str]] = {"column": "left", "row": "above"}

    def draw(self, rng: np.random.Generator) -> tuple[list[Scene], list[Query]]:
        scene = distinct_scene(rng)
        return [scene], relation_queries(scene, rng)

    def shortcut(self, item: Item) -> str:
        """Answer from the question alone: the first of the two things or words that it names."""
        return self.guesses.get(item.facets["asks"], item.question.split()[4])


@dataclass(frozen=True)
class Row(SceneTask):
    """Read one of two rows of digits from left to right."""

    name: ClassVar[str] = "scene.row"
    summary: ClassVar[str] = "read one of two rows of digits, in order"
    chance: ClassVar[float] = sum(10.0**-length for length in ROW_LENGTHS) / len(ROW_LENGTHS)
    guesses: ClassVar[Mapping[str, str]] = {
        str(length): " ".join(DIGITS[:1] * length) for length in ROW_LENGTHS
    }

    def draw(self, rng: np.random.Generator) -> tuple[list[Scene], list[Query]]:
        scene = two_rows(rng)
        return [scene], row_queries(scene, rng)


@dataclass(frozen=True)
class Exists(SceneTask):
    """Whether a shape is there in a colour; both are there in any case, perhaps apart."""

    name: ClassVar[str] = "scene.exists"
    summary: ClassVar[str] = "whether a picture holds a shape in a colour"
    chance: ClassVar[float] = 1 / 2
    guesses: ClassVar[Mapping[str, str]] = {"there": "yes", "not there": "yes"}

    def draw(self, rng: np.random.Generator) -> tuple[list[Scene], list[Query]]:
        scene = distinct_scene(rng)
        return [scene], existence_queries(scene, rng)


@dataclass(frozen=True)
class Images(SceneTask):
    """An attribute in one of two images, where the other one would have another answer."""

    name: ClassVar[str] = "scene.images"
    summary: ClassVar[str] = "an attribute in the first or second of two pictures"
    chance: ClassVar[float] = _ATTRIBUTE_CHANCE
    context: ClassVar[str] = " ".join(f"{place} {IMAGE_WORD}" for place in PLACES)
    guesses: ClassVar[Mapping[str, str]] = _ATTRIBUTE_GUESSES

    def draw(self, rng: np.random.Generator) -> tuple[list[Scene], list[Query]]:
        while True:
            scenes = [distinct_scene(rng) for _ in PLACES]
            queries = image_queries(scenes, rng)
            # Without all three kinds, the first query would not be of each with equal chance.
            if {query.asks for query in queries} == set(ATTRIBUTES):
                return scenes, queries
