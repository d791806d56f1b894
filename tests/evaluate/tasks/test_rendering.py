"""Pictures: shapes have the symmetries of their names, and edges cut without moving anything."""

from __future__ import annotations

import numpy as np
import pytest

from effc.evaluate.tasks.rendering import (
    COLOURS,
    DIGITS,
    INK,
    SHAPES,
    Backdrop,
    Sprite,
    glyph,
    render,
    render_owners,
    stencil,
)

RADII = (2, 5, 7, 10)
FLAT = Backdrop(100)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", RADII)
def test_shapes_have_the_symmetries_of_their_names(shape: str, radius: int) -> None:
    mask = stencil(shape, radius)
    assert mask.shape == (2 * radius + 1, 2 * radius + 1)
    assert (mask == mask[:, ::-1]).all()
    if shape == "triangle":
        widths = mask.sum(1)
        assert widths[0] == 1 and widths[-1] == 2 * radius + 1 and (np.diff(widths) >= 0).all()
    else:
        assert (mask == mask.T).all()


@pytest.mark.parametrize("radius", (5, 10))
def test_areas_are_those_of_geometry(radius: int) -> None:
    side = 2 * radius + 1
    areas = {shape: stencil(shape, radius).sum() / side**2 for shape in SHAPES}
    assert abs(areas["circle"] - np.pi / 4) < 0.05
    assert areas["square"] == (2 * (radius - radius // 6) + 1) ** 2 / side**2
    assert areas["diamond"] == (2 * radius * (radius + 1) + 1) / side**2


@pytest.mark.parametrize("radius", (5, 10))
def test_what_is_told_apart_looks_different(radius: int) -> None:
    masks = [stencil(shape, radius) for shape in SHAPES]
    assert len({mask.tobytes() for mask in masks}) == len(SHAPES)
    assert len({glyph(digit, 1).tobytes() for digit in DIGITS}) == len(DIGITS)
    greys = {(value, value, value) for value in range(20, 201)}
    assert len({*COLOURS.values(), INK}) == len(COLOURS) + 1
    assert not greys & {*COLOURS.values(), INK}


@pytest.mark.parametrize("radius", (5, 10))
@pytest.mark.parametrize("shape", SHAPES)
def test_ink_stays_on_its_shape(shape: str, radius: int) -> None:
    height, width = glyph("8", 1).shape
    middle = stencil(shape, radius)[radius - height // 2 :, radius - width // 2 :]
    assert middle[:height, :width].all()


def test_digits_grow_by_whole_pixels() -> None:
    assert [stencil("4", radius).shape for radius in (2, 4, 5, 7)] == [
        (5, 3),
        (5, 3),
        (10, 6),
        (15, 9),
    ]


@pytest.mark.parametrize("shift", ((-7, -3), (0, 9), (25, 40), (60, -60)))
def test_edges_cut_and_do_not_move(shift: tuple[int, int]) -> None:
    sprites = [Sprite("circle", "red", 20, 20, 9, "3"), Sprite("7", "blue", 12, 30, 7)]
    margin = 80
    far = [moved(sprite, shift[0] + margin, shift[1] + margin) for sprite in sprites]
    large = render(far, FLAT, 40 + 2 * margin, 50 + 2 * margin)
    near = render([moved(sprite, *shift) for sprite in sprites], FLAT, 40, 50)
    assert (near == large[margin : margin + 40, margin : margin + 50]).all()


def moved(sprite: Sprite, x: int, y: int) -> Sprite:
    return Sprite(
        sprite.shape, sprite.colour, sprite.x + x, sprite.y + y, sprite.radius, sprite.digit
    )


def test_later_sprites_cover_earlier_ones_and_owners_say_which() -> None:
    sprites = [Sprite("square", "red", 10, 10, 6, "8"), Sprite("circle", "white", 15, 10, 4)]
    pixels, owners = render(sprites, FLAT, 20, 22), render_owners(sprites, 20, 22)
    assert (pixels[10, 15] == COLOURS["white"]).all() and owners[10, 15] == 1
    assert (pixels[owners == 1] == COLOURS["white"]).all()
    assert (pixels[owners == -1] == 100).all()
    seen = {tuple(pixel) for pixel in pixels[owners == 0].tolist()}
    assert seen == {COLOURS["red"], INK}


def test_backdrops_slope_and_stay_grey() -> None:
    pixels = render([], Backdrop(100, (40, -20), 12, 9), 98, 98).astype(int)
    assert (pixels == pixels[..., :1]).all()
    sloping = render([], Backdrop(100, (40, -20)), 98, 98).astype(int)[..., 0]
    assert (np.diff(sloping, axis=1) >= 0).all() and (np.diff(sloping, axis=0) <= 0).all()
    assert abs(sloping[0, -1] - sloping[0, 0] - 40) <= 1
    rippled = pixels[..., 0] - sloping
    assert rippled.min() == 0 and rippled.max() == 12


@pytest.mark.parametrize(
    "sprite", (Sprite("blob", "red", 5, 5, 3), Sprite("circle", "mauve", 5, 5, 3))
)
def test_unknown_names_are_refused(sprite: Sprite) -> None:
    with pytest.raises(KeyError):
        render([sprite], FLAT, 10, 10)
