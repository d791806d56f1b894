"""Clips of moving objects: what is in them, and their pixels.

A frame is a grid of `GRID` x `GRID` cells as large as a patch of the image tower, and an object
fills one cell at a time. What leaves at one edge comes back at the opposite one, so where an object
is in a frame says nothing about where it goes: only two frames together do. Cells without an object
keep their pixels through the whole clip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from effc.evaluate.tasks.rendering import COLOURS, Backdrop, render, stencil

GRID = 5
CELL = 7  # pixels, the patch of the image towers
SIDE = GRID * CELL

SHAPES = ("circle", "square", "triangle", "cross")
# (rows, columns) of one step; rows grow downwards.
DIRECTIONS: Mapping[str, tuple[int, int]] = {
    "left": (0, -1),
    "right": (0, 1),
    "up": (-1, 0),
    "down": (1, 0),
}
# Frames per step.
SPEEDS: Mapping[str, int] = {"fast": 1, "slowly": 2}


@dataclass(frozen=True)
class Mover:
    """One object on its way.

    Attributes:
        colour: A key of `COLOURS`; the objects of a clip differ in it.
        shape: One of `SHAPES`.
        direction: A key of `DIRECTIONS`.
        speed: A key of `SPEEDS`.
        cell: Row and column in the last frame.
        appears: The first frame that shows the object; it stays to the end.
        phase: Frames since its latest step when the clip ends, less than frames per step.
    """

    colour: str
    shape: str
    direction: str
    speed: str
    cell: tuple[int, int]
    appears: int
    phase: int

    def cells(self, frames: int) -> NDArray[np.int64]:
        """Return row and column in each frame, [frames, 2], as if it were there all the time."""
        ago = np.arange(frames)[::-1, None]
        steps = (ago + self.phase) // SPEEDS[self.speed]
        return (np.array(self.cell) - steps * np.array(DIRECTIONS[self.direction])) % GRID


@dataclass(frozen=True)
class Clip:
    """A clip before it is painted.

    Attributes:
        frames: Number of frames.
        movers: The objects in the order in which they appear; a later one hides what
            else is in its cell.
        backdrop: The grey behind everything, the same in all frames.
        posters: Cells with grey noise on the backdrop that never changes, and their pixels
            [CELL, CELL]: high entropy, no meaning.
    """

    frames: int
    movers: tuple[Mover, ...]
    backdrop: Backdrop
    posters: tuple[tuple[tuple[int, int], NDArray[np.uint8]], ...] = ()

    def moving(self, direction: str) -> list[Mover]:
        """Return the objects that move in a direction."""
        return [mover for mover in self.movers if mover.direction == direction]


def draw(rng: Generator, frames: int, directions: Sequence[str]) -> Clip:
    """Draw a clip with one object per given direction.

    Cells of the last frame, colours, shapes, speeds and times of appearance are drawn apart from
    the directions, so that the last frame tells nothing about them. All objects are there in the
    second half of the clip.

    Args:
        rng: The stream to draw from.
        frames: Number of frames, at least twice the number of objects.
        directions: Where the objects go, in the order in which they appear.
    """
    count = len(directions)
    appears = np.sort(rng.permutation(frames // 2)[:count])
    colours = rng.permutation(len(COLOURS))[:count]
    cells = rng.permutation(GRID * GRID)[:count]
    looks = rng.integers(0, [len(SHAPES), len(SPEEDS), max(SPEEDS.values())], size=(count, 3))
    movers = []
    for place, direction in enumerate(directions):
        shape, speed, phase = looks[place].tolist()
        name = tuple(SPEEDS)[speed]
        mover = Mover(
            colour=tuple(COLOURS)[colours[place]],
            shape=SHAPES[shape],
            direction=direction,
            speed=name,
            cell=(int(cells[place]) // GRID, int(cells[place]) % GRID),
            appears=int(appears[place]),
            phase=phase % SPEEDS[name],
        )
        movers.append(mover)
    return Clip(frames, tuple(movers), *_draw_surroundings(rng))


def _draw_surroundings(
    rng: Generator,
) -> tuple[Backdrop, tuple[tuple[tuple[int, int], NDArray[np.uint8]], ...]]:
    level, across, down, count = rng.integers((60, -20, -20, 0), (120, 21, 21, 4)).tolist()
    cells = rng.permutation(GRID * GRID)[:count].tolist()
    noise = rng.integers(40, 200, size=(count, CELL, CELL)).astype(np.uint8)
    posters = tuple((divmod(cell, GRID), noise[place]) for place, cell in enumerate(cells))
    return Backdrop(level=level, slope=(across, down)), posters


def paint(clip: Clip) -> NDArray[np.uint8]:
    """Return the frames as pixels, [frames, SIDE, SIDE, 3]."""
    still = render((), clip.backdrop, SIDE, SIDE)
    for (row, column), noise in clip.posters:
        top, left = row * CELL, column * CELL
        still[top : top + CELL, left : left + CELL] = noise[:, :, None]
    empty = still.reshape(GRID, CELL, GRID, CELL, 3).transpose(0, 2, 1, 3, 4)
    pixels = np.repeat(still[None], clip.frames, axis=0)
    by_cell = pixels.reshape(clip.frames, GRID, CELL, GRID, CELL, 3)
    for mover in clip.movers:
        inside = _stencil(mover.shape)[:, :, None]
        shown = np.arange(mover.appears, clip.frames)
        rows, columns = mover.cells(clip.frames)[mover.appears :].T
        # What was painted there before vanishes, between the arms of a cross too.
        by_cell[shown, rows, :, columns] = np.where(
            inside, np.array(COLOURS[mover.colour], np.uint8), empty[rows, columns]
        )
    return pixels


@dataclass(frozen=True)
class Seen:
    """An object as one frame shows it."""

    colour: str
    shape: str
    cell: tuple[int, int]


def look(frame: NDArray[np.uint8]) -> list[Seen]:
    """Read the objects off one frame [SIDE, SIDE, 3], row by row: all that a still frame tells."""
    palette = np.array(tuple(COLOURS.values()), np.uint8)
    cells = frame.reshape(GRID, CELL, GRID, CELL, 3).swapaxes(1, 2)
    inside = (cells[:, :, None] == palette[:, None, None]).all(axis=-1)  # [row, column, colour, ..]
    return [
        Seen(
            colour=tuple(COLOURS)[colour],
            shape=next(s for s in SHAPES if (inside[row, column, colour] == _stencil(s)).all()),
            cell=(row, column),
        )
        for row, column, colour in np.argwhere(inside.any(axis=(-2, -1))).tolist()
    ]


def _stencil(shape: str) -> NDArray[np.bool_]:
    return stencil(shape, CELL // 2)  # a shape fills its cell
