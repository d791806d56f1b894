"""Pictures of small scenes: coloured shapes and digits on a soft background.

Everything is integer arithmetic on pixels, so equal scenes give equal bytes on every machine and
with every NumPy. What a scene means, and what is asked about it, is the business of its callers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (225, 45, 45),
    "green": (50, 190, 70),
    "blue": (60, 95, 240),
    "yellow": (240, 215, 50),
    "purple": (175, 70, 215),
    "white": (245, 245, 245),
}
INK = (10, 10, 10)  # of the digits on shapes

# (x, y, r) -> inside; offsets from the centre and the radius, in pixels.
_Inside = Callable[[NDArray[np.int64], NDArray[np.int64], int], NDArray[np.bool_]]
_SHAPES: Mapping[str, _Inside] = {
    "circle": lambda x, y, r: x * x + y * y <= r * (r + 1),
    "square": lambda x, y, r: np.maximum(abs(x), abs(y)) <= r - r // 6,
    "triangle": lambda x, y, r: (2 * abs(x) <= y + r) & (y <= r),
    "diamond": lambda x, y, r: abs(x) + abs(y) <= r,
    "cross": lambda x, y, r: np.minimum(abs(x), abs(y)) <= r // 3,
}
SHAPES = tuple(_SHAPES)

GLYPH_WIDTH, GLYPH_HEIGHT = 3, 5
# Rows of three pixels from the top, as octal digits: 7 is a full row, 4 its left pixel.
_GLYPHS = {
    "0": "75557",
    "1": "26227",
    "2": "71747",
    "3": "71717",
    "4": "55711",
    "5": "74717",
    "6": "74757",
    "7": "71122",
    "8": "75757",
    "9": "75717",
}
DIGITS = tuple(_GLYPHS)


@dataclass(frozen=True)
class Sprite:
    """One object of a scene.

    Attributes:
        shape: A shape, or a digit, which is then drawn in `colour` without a shape around it.
        colour: A key of `COLOURS`.
        x: Column of the centre in pixels; parts outside the picture are cut off.
        y: Row of the centre in pixels, growing downwards.
        radius: Half the extent: a shape covers at most `2 * radius + 1` pixels each way. A bare
            digit is as large as a multiple of 3 x 5 pixels can be in that height.
        digit: Drawn in ink on the shape's centre, 3 x 5 pixels; empty for none.
    """

    shape: str
    colour: str
    x: int
    y: int
    radius: int
    digit: str = ""


@dataclass(frozen=True)
class Backdrop:
    """A grey that changes slowly: a slope and a ripple over the whole picture.

    Attributes:
        level: Grey in the middle, 0 to 255.
        slope: Change of grey from left to right and from top to bottom.
        ripple: Height of a diagonal triangle wave, in grey levels.
        period: Half the length of that wave in pixels.
    """

    level: int = 100
    slope: tuple[int, int] = (0, 0)
    ripple: int = 0
    period: int = 8


def render(
    sprites: Sequence[Sprite], backdrop: Backdrop, height: int, width: int
) -> NDArray[np.uint8]:
    """Paint a scene, later sprites over earlier ones.

    Returns:
        Pixels [height, width, 3], red, green, blue.

    Raises:
        KeyError: A sprite has an unknown shape, colour or digit.
    """
    grey = _paint_backdrop(backdrop, height, width)
    pixels = np.repeat(grey[:, :, None], 3, axis=2)
    for sprite in sprites:
        _stamp(pixels, stencil(sprite.shape, sprite.radius), sprite, COLOURS[sprite.colour])
        if sprite.digit:
            _stamp(pixels, glyph(sprite.digit, 1), sprite, INK)
    return pixels


def render_owners(sprites: Sequence[Sprite], height: int, width: int) -> NDArray[np.int16]:
    """Return which sprite each pixel shows, [height, width]: its place in the list, -1 for none.

    Ink that stands out over a shape's edge counts as the sprite's.
    """
    owners = np.full((height, width), -1, dtype=np.int16)
    for index, sprite in enumerate(sprites):
        _stamp(owners, stencil(sprite.shape, sprite.radius), sprite, index)
        if sprite.digit:
            _stamp(owners, glyph(sprite.digit, 1), sprite, index)
    return owners


def stencil(shape: str, radius: int) -> NDArray[np.bool_]:
    """Return which pixels a shape or a bare digit covers, as a box around its centre."""
    if shape in _GLYPHS:
        return glyph(shape, max(1, (2 * radius + 1) // GLYPH_HEIGHT))
    offsets = np.arange(-radius, radius + 1)
    return _SHAPES[shape](offsets[None, :], offsets[:, None], radius)


def glyph(digit: str, scale: int) -> NDArray[np.bool_]:
    """Return which pixels a digit covers, [5 * scale, 3 * scale]."""
    rows = [[int(row) >> bit & 1 for bit in (2, 1, 0)] for row in _GLYPHS[digit]]
    return np.array(rows, dtype=bool).repeat(scale, axis=0).repeat(scale, axis=1)


def _paint_backdrop(backdrop: Backdrop, height: int, width: int) -> NDArray[np.uint8]:
    x, y = np.arange(width)[None, :], np.arange(height)[:, None]
    across, down = backdrop.slope
    slope = across * (2 * x - width) // (2 * width) + down * (2 * y - height) // (2 * height)
    wave = abs((x + y) % (2 * backdrop.period) - backdrop.period)
    grey = backdrop.level + slope + backdrop.ripple * wave // backdrop.period
    return grey.clip(0, 255).astype(np.uint8)


def _stamp(
    canvas: NDArray[Any], mask: NDArray[np.bool_], sprite: Sprite, value: Sequence[int] | int
) -> None:
    """Write a value under a mask centred on a sprite; what lies outside is cut off."""
    top, left = sprite.y - mask.shape[0] // 2, sprite.x - mask.shape[1] // 2
    bottom, right = max(top + mask.shape[0], 0), max(left + mask.shape[1], 0)
    window = canvas[max(top, 0) : bottom, max(left, 0) : right]
    cut = mask[max(-top, 0) :, max(-left, 0) :][: window.shape[0], : window.shape[1]]
    window[cut] = value
