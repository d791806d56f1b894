"""Still scenes on a grid of patches: what lies where, and what it looks like.

A picture is 98 x 98 pixels, 14 x 14 patches of 7. Things lie in the cells of a coarse grid of
3 x 3, shifted by whole patches; digits are 3 x 5 pixels and so belong to one patch each. All else
is background, so that most visual tokens say the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from effc.evaluate.tasks.rendering import COLOURS, DIGITS, SHAPES, Backdrop, Sprite, render

PATCH = 7
PATCHES = 14
SIDE = PATCH * PATCHES
CELLS = 3
CELL = 4  # patches
REACH = 1  # patches that a thing covers on each side of its centre's
SMALL, LARGE = 5, 10  # radii in pixels; a large thing fills 3 x 3 patches
ROW_RADIUS = 2  # of bare digits: 3 x 5 pixels
ROW_STEP = 2  # patches from one digit of a row to the next
ROW_LENGTHS = (4, 5, 6)


@dataclass(frozen=True)
class Thing:
    """A shape, or a bare digit, whose centre is the centre of the patch (row, column)."""

    shape: str
    colour: str
    row: int
    column: int
    radius: int
    digit: str = ""

    def sprite(self) -> Sprite:
        """Return what is drawn."""
        x, y = (PATCH * patch + PATCH // 2 for patch in (self.column, self.row))
        return Sprite(self.shape, self.colour, x, y, self.radius, self.digit)


@dataclass(frozen=True)
class Scene:
    """Things that do not overlap, on a backdrop."""

    things: tuple[Thing, ...]
    backdrop: Backdrop

    def draw(self) -> NDArray[np.uint8]:
        """Return the pixels, [98, 98, 3]."""
        return render([thing.sprite() for thing in self.things], self.backdrop, SIDE, SIDE)


def distinct_scene(rng: np.random.Generator, least: int = 3, most: int = 5) -> Scene:
    """Draw things that differ in colour, shape and digit; two or more are not all of one size."""
    count = int(rng.integers(least, most + 1))
    kinds = zip(
        _pick(rng, SHAPES, count),
        _pick(rng, tuple(COLOURS), count),
        _mixed_sizes(rng, count),
        _pick(rng, DIGITS, count),
        strict=True,
    )
    places = _places(rng, count)
    things = [
        Thing(shape, colour, *place, radius, digit)
        for (shape, colour, radius, digit), place in zip(kinds, places, strict=True)
    ]
    return Scene(tuple(things), random_backdrop(rng))


def crowd(rng: np.random.Generator, kinds: Iterable[tuple[str, str]]) -> Scene:
    """Place the given pairs of shape and colour; sizes are mixed, digits are there or not."""
    pairs = list(kinds)
    sizes = _mixed_sizes(rng, len(pairs))
    digits = rng.integers(0, 2 * len(DIGITS), len(pairs))
    things = []
    for (shape, colour), radius, place, digit in zip(
        pairs, sizes, _places(rng, len(pairs)), digits, strict=True
    ):
        things.append(Thing(shape, colour, *place, radius, "".join(DIGITS[digit : digit + 1])))
    return Scene(tuple(things), random_backdrop(rng))


def two_rows(rng: np.random.Generator) -> Scene:
    """Draw two rows of bare digits, each in a colour of its own, from left to right."""
    first = int(rng.integers(PATCHES))
    second = (first + int(rng.integers(3, PATCHES - 2))) % PATCHES
    things = []
    for row, colour in zip((first, second), _pick(rng, tuple(COLOURS), 2), strict=True):
        length = int(rng.choice(ROW_LENGTHS))
        start = int(rng.integers(PATCHES - ROW_STEP * (length - 1)))
        for place, digit in enumerate(rng.integers(0, len(DIGITS), length)):
            column = start + ROW_STEP * place
            things.append(Thing(DIGITS[digit], colour, row, column, ROW_RADIUS))
    return Scene(tuple(things), random_backdrop(rng))


def random_backdrop(rng: np.random.Generator) -> Backdrop:
    """Draw a grey that is dark enough for every colour and light enough for ink."""
    level, across, down = rng.integers((80, -60, -60), (121, 61, 61))
    ripple, period = rng.integers((0, 6), (21, 21))
    return Backdrop(int(level), (int(across), int(down)), int(ripple), int(period))


def _places(rng: np.random.Generator, count: int) -> list[tuple[int, int]]:
    """Draw patches (row, column) in different cells, so far apart that nothing overlaps."""
    cells = rng.permutation(CELLS * CELLS)[:count]
    shift = rng.integers(0, PATCHES - CELLS * CELL + 1, 2)
    inside = REACH + rng.integers(0, CELL - 2 * REACH, (count, 2))
    centres = np.stack([cells // CELLS, cells % CELLS], axis=1) * CELL + shift + inside
    return [(int(row), int(column)) for row, column in centres]


def _pick(rng: np.random.Generator, among: tuple[str, ...], count: int) -> list[str]:
    return [among[index] for index in rng.permutation(len(among))[:count]]


def _mixed_sizes(rng: np.random.Generator, count: int) -> list[int]:
    """Draw sizes, at least one of each if there are two things."""
    sizes = [SMALL, LARGE, *(SMALL if small else LARGE for small in rng.integers(0, 2, count))]
    return [sizes[index] for index in rng.permutation(count)]
