"""Answers about clips from their pixels alone, by trying every motion: slow, and independent."""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from effc.evaluate.tasks.base import Item
from effc.evaluate.tasks.clips import COUNTS
from effc.evaluate.tasks.moving import DIRECTIONS, GRID, SPEEDS, look


def sightings(frames: NDArray[np.uint8]) -> dict[tuple[str, str], dict[int, tuple[int, int]]]:
    """Colour and shape -> frame -> cell, for every object that can be seen."""
    seen: dict[tuple[str, str], dict[int, tuple[int, int]]] = {}
    for number, frame in enumerate(frames):
        for each in look(frame):
            seen.setdefault((each.colour, each.shape), {})[number] = each.cell
    return seen


def motions(sighted: dict[int, tuple[int, int]]) -> set[tuple[str, str]]:
    """Every direction and speed that explains where an object was seen."""
    first = min(sighted)
    fitting = set()
    for way, pace in product(DIRECTIONS, SPEEDS):
        for wait in range(SPEEDS[pace]):  # frames until the first step
            steps = {n: (n - first + SPEEDS[pace] - 1 - wait) // SPEEDS[pace] for n in sighted}
            moved = {
                n: tuple(
                    (start + steps[n] * delta) % GRID
                    for start, delta in zip(sighted[first], DIRECTIONS[way], strict=True)
                )
                for n in sighted
            }
            if moved == sighted:
                fitting.add((way, pace))
    return fitting


def told(frames: NDArray[np.uint8]) -> list[tuple[str, str, str, str]]:
    """Colour, shape, direction, speed of every object, in the order of appearance."""
    seen = sightings(frames)
    told = []
    for colour, shape in sorted(seen, key=lambda each: min(seen[each])):
        ((way, pace),) = motions(seen[colour, shape])  # exactly one explanation
        told.append((colour, shape, way, pace))
    return told


def answer_from_pixels(item: Item) -> str:
    """Answer a question, or give the visual words of a caption, knowing the pixels only."""
    objects = told(np.stack(item.images))
    asked = item.question.split()
    if asked[0] == "describe":
        return " ".join((COUNTS[len(objects)], *(word for each in objects for word in each)))
    if "does" in asked:
        return next(way for colour, _, way, _ in objects if colour in asked)
    going = [colour for colour, _, way, _ in objects if way in asked]
    if "many" in asked:
        return COUNTS[len(going)]
    if going:
        (colour,) = going
        return colour
    return objects[{"first": 0, "second": 1, "last": -1}[asked[3]]][0]
