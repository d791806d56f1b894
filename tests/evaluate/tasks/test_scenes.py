"""Scenes: the picture decides every answer, and the question alone decides none."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from effc.evaluate.tasks.base import EVALUATION_SEED, Item, stream
from effc.evaluate.tasks.layout import PATCH, PATCHES, ROW_STEP, SIDE, Scene, Thing
from effc.evaluate.tasks.rendering import COLOURS, DIGITS, INK, glyph, render_owners, stencil
from effc.evaluate.tasks.scenes import (
    PLACES,
    WORDS,
    Attribute,
    Count,
    Exists,
    Images,
    Query,
    Relation,
    Row,
    SceneTask,
)

TASKS = (Attribute(), Count(), Relation(), Row(), Exists(), Images())
DRAWS = 3000


@pytest.fixture(scope="module", params=TASKS, ids=lambda task: task.name)
def task(request: pytest.FixtureRequest) -> SceneTask:
    return request.param


@pytest.fixture(scope="module")
def queries(task: SceneTask) -> list[Query]:
    """What items ask, without the cost of painting them."""
    return [task.draw(stream(7, index))[1][0] for index in range(DRAWS)]


def test_a_blind_model_that_remembers_every_question_is_left_with_chance(
    task: SceneTask, queries: list[Query]
) -> None:
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for query in queries[: DRAWS // 2]:
        seen[query.question][query.answer] += 1
    later = [query for query in queries[DRAWS // 2 :] if query.question in seen]
    assert len(later) > DRAWS // 3
    right = sum(seen[q.question].most_common(1)[0][0] == q.answer for q in later)
    assert within(right / len(later), task.chance, len(later))


def test_the_shortcut_has_the_stated_chance(task: SceneTask, queries: list[Query]) -> None:
    items = [Item("", query.question, query.answer, (), {"asks": query.asks}) for query in queries]
    right = sum(task.correct(item, task.shortcut(item)) for item in items)
    assert within(right / DRAWS, task.chance, DRAWS)


def within(share: float, chance: float, count: int) -> bool:
    """Whether a share is at most four standard errors from what chance gives."""
    return abs(share - chance) <= 4 * (chance * (1 - chance) / count) ** 0.5


def test_all_words_are_known_and_used() -> None:
    used: set[str] = set()
    for task in TASKS:
        used.update(task.context.split())
        for index in range(200):
            for query in task.draw(stream(3, index))[1]:
                used.update(f"{query.question} {query.answer}".split())
    assert used == set(WORDS)
    assert len(set(WORDS)) == len(WORDS)


def test_nothing_overlaps_is_cut_off_or_shares_a_patch(task: SceneTask) -> None:
    for index in range(60):
        for scene in task.draw(stream(1, index))[0]:
            owners = render_owners([thing.sprite() for thing in scene.things], SIDE, SIDE)
            for number, thing in enumerate(scene.things):
                assert (owners == number).sum() == stencil(thing.shape, thing.radius).sum()
            tiles = owners.reshape(PATCHES, PATCH, PATCHES, PATCH).swapaxes(1, 2)
            tiles = tiles.reshape(PATCHES * PATCHES, -1)
            assert all(len(set(tile) - {-1}) <= 1 for tile in tiles.tolist())


def test_most_patches_show_background_only(task: SceneTask) -> None:
    scenes = [scene for index in range(60) for scene in task.draw(stream(2, index))[0]]
    shares = []
    for scene in scenes:
        owners = render_owners([thing.sprite() for thing in scene.things], SIDE, SIDE)
        tiles = owners.reshape(PATCHES, PATCH, PATCHES, PATCH) >= 0
        shares.append(1 - tiles.any(axis=(1, 3)).mean())
    assert np.mean(shares) > 0.6


def test_counts_are_those_of_the_things() -> None:
    for index in range(300):
        (scene,), (query, *_) = Count().draw(stream(4, index))
        kind = query.question.split()[3]
        words = [word for thing in scene.things for word in (thing.shape, thing.colour)]
        assert sum(kind in (word, f"{word}s", f"{word}es") for word in words) == int(query.answer)


@pytest.mark.parametrize(
    "task", (Attribute(), Relation(), Exists(), Images()), ids=lambda t: t.name
)
def test_answers_can_be_read_from_the_pixels(task: SceneTask) -> None:
    for item in task.items(60, EVALUATION_SEED):
        words = item.question.split()
        image = item.images[PLACES.index(words[2]) if words[:2] == ["in", "the"] else 0]
        things = [Found(image, colour) for colour in COLOURS if found(image, colour)]
        assert solve(words[4:] if len(item.images) > 1 else words, things) == item.answer


def solve(words: Sequence[str], things: Sequence[Found]) -> str:
    shapes = {thing.shape: thing for thing in things}
    colours = {thing.colour: thing for thing in things}
    match list(words):
        case ["what", "colour", "is", "the", shape]:
            return shapes[shape].colour
        case ["what", "shape", "is", colour]:
            return colours[colour].shape
        case ["what", "digit", "is", "on", "the", shape]:
            return shapes[shape].digit
        case ["is", "there", "a", colour, shape]:
            return "yes" if colours[colour].shape == shape else "no"
        case ["is", "the", one, "left", "or", "right", "of", "the", two]:
            return "left" if shapes[one].x < shapes[two].x else "right"
        case ["is", "the", one, "above", "or", "below", "the", two]:
            return "above" if shapes[one].y < shapes[two].y else "below"
        case ["which", "is", "larger", "the", one, "or", "the", two]:
            return one if shapes[one].extent > shapes[two].extent else two
    raise AssertionError(words)


def found(image: NDArray[np.uint8], colour: str) -> bool:
    return bool((image == COLOURS[colour]).all(-1).any())


class Found:
    """The one thing of a colour, measured on the pixels alone."""

    def __init__(self, image: NDArray[np.uint8], colour: str) -> None:
        self.colour = colour
        inside = (image == COLOURS[colour]).all(-1)
        rows, columns = (np.nonzero(inside.any(axis))[0] for axis in (1, 0))
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        ink = (image[box] == INK).all(-1)
        self.y, self.x = rows[0] + rows[-1], columns[0] + columns[-1]
        self.extent = rows[-1] - rows[0]
        self.shape = name_shape(inside[box] | ink)
        self.digit = name_digit(ink)


def name_shape(mask: NDArray[np.bool_]) -> str:
    if mask.all():
        return "square"
    if mask[-1].all():
        return "triangle"
    if mask.mean() > 0.7:
        return "circle"
    return "diamond" if mask[0].sum() == 1 else "cross"


def name_digit(ink: NDArray[np.bool_]) -> str:
    rows, columns = (np.nonzero(ink.any(axis))[0] for axis in (1, 0))
    # A glyph may leave its outer columns empty, so it is looked for around the box's centre.
    middle, centre = ink.shape[0] // 2, ink.shape[1] // 2
    window = ink[middle - 2 : middle + 3, centre - 1 : centre + 2]
    assert window.sum() == ink.sum() and len(rows) == 5 and len(columns) <= 3
    return next(digit for digit in DIGITS if (glyph(digit, 1) == window).all())


def test_rows_can_be_read_from_the_pixels() -> None:
    for item in Row().items(60, EVALUATION_SEED):
        image, colour = item.images[0], item.question.split()[-1]
        inside = (image == COLOURS[colour]).all(-1)
        top = int(np.nonzero(inside.any(1))[0][0]) // PATCH * PATCH
        patches = inside[top : top + PATCH].reshape(PATCH, PATCHES, PATCH).swapaxes(0, 1)
        shown = [column for column in range(PATCHES) if patches[column].any()]
        assert set(np.diff(shown)) == {ROW_STEP}
        read = [
            next(d for d in DIGITS if (glyph(d, 1) == patches[column][1:6, 2:5]).all())
            for column in shown
        ]
        assert " ".join(read) == item.answer
        assert inside.sum() == sum(glyph(digit, 1).sum() for digit in read)


def test_the_other_image_would_give_another_answer() -> None:
    for index in range(100):
        scenes, queries = Images().draw(stream(5, index))
        answers = {(query.question.split()[2], query.question[16:].strip()): query.answer
                   for query in queries}  # fmt: skip
        for query in queries:
            place, rest = query.question.split()[2], query.question[16:].strip()
            other = PLACES[1 - PLACES.index(place)]
            assert all(
                a != query.answer for (p, q), a in answers.items() if (p, q) == (other, rest)
            )


def test_a_thing_is_centred_on_its_patch() -> None:
    sprite = Thing("circle", "red", row=2, column=5, radius=5).sprite()
    assert (sprite.x, sprite.y) == (5 * 7 + 3, 2 * 7 + 3)


def test_equal_scenes_are_painted_alike() -> None:
    scene: Scene = Attribute().draw(stream(0, 0))[0][0]
    assert (scene.draw() == Scene(scene.things, scene.backdrop).draw()).all()
