"""Clips and the questions about them: right by enumeration, closed to shortcuts by counting."""

from __future__ import annotations

from collections import Counter
from itertools import product
from math import sqrt

import numpy as np
import pytest

from effc.evaluate.tasks.base import EVALUATION_SEED, Item, stream
from effc.evaluate.tasks.clips import (
    ARTICLES,
    FRAMES,
    LINKS,
    NOUNS,
    OPENINGS,
    PAUSES,
    PLACES,
    VERBS,
    VISUAL_WORDS,
    Caption,
    ColourOrder,
    Count,
    Direction,
    caption,
    visual_words,
    words,
)
from effc.evaluate.tasks.moving import (
    CELL,
    DIRECTIONS,
    GRID,
    SHAPES,
    SIDE,
    Clip,
    Mover,
    draw,
    look,
    paint,
)
from effc.evaluate.tasks.rendering import COLOURS, Backdrop
from tests.evaluate.tasks.sighted import answer_from_pixels, sightings

TASKS = (Direction(), Count(), ColourOrder(), Caption())
MANY = 800  # items of one length; a standard error of at most 1.8 %


def standard_error(share: float, count: int) -> float:
    return sqrt(share * (1 - share) / count)


@pytest.fixture(scope="module")
def sets() -> dict[str, list[Item]]:
    """Items of the shortest clips, where least is to be seen."""
    return {
        task.name: type(task)(frames=(FRAMES[0],)).items(MANY, EVALUATION_SEED) for task in TASKS
    }


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@pytest.mark.parametrize("frames", FRAMES)
def test_pixels_decide_every_answer(task: Direction, frames: int) -> None:
    for item in type(task)(frames=(frames,)).items(60, EVALUATION_SEED):
        assert task.correct(item, answer_from_pixels(item))


def test_objects_appear_one_after_another_and_all_stay() -> None:
    for index in range(100):
        clip = draw(stream(EVALUATION_SEED, index), 8, ("left", "right", "up"))
        appears = [mover.appears for mover in clip.movers]
        assert appears == sorted(set(appears)) and appears[-1] < 4
        seen = {colour: cells for (colour, _), cells in sightings(paint(clip)).items()}
        # Nothing covers an object when it appears or when the clip ends.
        assert [min(seen[mover.colour]) for mover in clip.movers] == appears
        assert [seen[mover.colour][7] for mover in clip.movers] == [m.cell for m in clip.movers]


def test_painting_agrees_with_pixels_set_one_by_one() -> None:
    fast = Mover("red", "square", "left", "fast", cell=(1, 3), appears=1, phase=0)
    slow = Mover("blue", "circle", "down", "slowly", cell=(0, 2), appears=2, phase=1)
    noise = np.arange(CELL * CELL, dtype=np.uint8).reshape(CELL, CELL) + 60
    clip = Clip(4, (fast, slow), Backdrop(level=90), posters=(((4, 2), noise),))
    # (row, column) in each frame, worked out by hand; the slow one stepped before the last frame.
    where = {fast: [None, (1, 0), (1, 4), (1, 3)], slow: [None, None, (4, 2), (0, 2)]}
    middle = CELL // 2
    for number, frame in enumerate(paint(clip)):
        assert frame.shape == (SIDE, SIDE, 3) and frame.dtype == np.uint8
        expected = np.full((SIDE, SIDE, 3), 90, np.uint8)
        expected[4 * CELL :, 2 * CELL : 3 * CELL] = noise[:, :, None]
        for mover, cells in where.items():
            if (cell := cells[number]) is None:
                continue
            row, column = cell[0] * CELL, cell[1] * CELL
            for y, x in product(range(CELL), repeat=2):
                dx, dy = x - middle, y - middle
                inside = mover.shape == "square" or dx * dx + dy * dy <= middle * (middle + 1)
                colour = COLOURS[mover.colour] if inside else (90, 90, 90)
                if not inside and cell == (4, 2):
                    colour = (noise[y, x],) * 3
                expected[row + y, column + x] = colour
        np.testing.assert_array_equal(frame, expected)


def test_cells_without_an_object_never_change() -> None:
    for index in range(50):
        clip = draw(stream(7, index), 8, ("left", "down", "up"))
        frames = paint(clip).reshape(8, GRID, CELL, GRID, CELL, 3).transpose(0, 1, 3, 2, 4, 5)
        empty = np.ones((8, GRID, GRID), bool)
        for mover in clip.movers:
            shown = np.arange(mover.appears, 8)
            empty[(shown, *mover.cells(8)[shown].T)] = False
        for row, column in product(range(GRID), repeat=2):
            still = frames[empty[:, row, column], row, column]
            assert (still == still[0]).all()


@pytest.mark.parametrize("task", TASKS[:3], ids=lambda task: task.name)
def test_the_question_alone_does_not_help(task: Direction, sets: dict[str, list[Item]]) -> None:
    """Given the question, no answer is more frequent than chance, but for its own counting."""
    items = sets[task.name]
    likely = 1 / 4 if task.name != "clip.colour-order" else 1 / 6
    assert task.chance == likely
    by_answer = Counter(item.answer for item in items)
    assert len(by_answer) == round(1 / likely)
    for count in by_answer.values():
        assert abs(count / MANY - likely) < 4 * standard_error(likely, MANY)
    by_question: dict[str, Counter[str]] = {}
    for item in items:
        by_question.setdefault(item.question, Counter())[item.answer] += 1
    for answers in by_question.values():
        asked = answers.total()
        assert answers.most_common(1)[0][1] / asked < likely + 4.5 * standard_error(likely, asked)


def test_the_last_frame_tells_nothing_about_directions(sets: dict[str, list[Item]]) -> None:
    """Every function of the last frame's cells is at chance, so the best one is too."""
    by_cell: dict[tuple[int, int], Counter[str]] = {}
    for item in sets["clip.direction"]:
        cell = next(s.cell for s in look(item.images[-1]) if s.colour in item.question.split())
        by_cell.setdefault(cell, Counter())[item.answer] += 1
    assert len(by_cell) == GRID * GRID
    # Pearson's statistic against equal odds; 75 degrees of freedom, variance 150.
    statistic = sum(
        (answers[way] - answers.total() / 4) ** 2 / (answers.total() / 4)
        for answers in by_cell.values()
        for way in DIRECTIONS
    )
    assert abs(statistic - 75) < 4 * sqrt(150)


@pytest.mark.parametrize(
    ("task", "expected"), [(TASKS[0], 1 / 4), (TASKS[1], 1 / 4), (TASKS[2], 1 / 3)]
)
def test_the_shortcut_is_as_good_as_the_last_frame_allows(
    task: Direction, expected: float, sets: dict[str, list[Item]]
) -> None:
    right = [task.correct(item, task.shortcut(item)) for item in sets[task.name]]
    assert abs(np.mean(right) - expected) < 4 * standard_error(expected, MANY)


def test_a_still_frame_gives_no_caption(sets: dict[str, list[Item]]) -> None:
    items = sets["clip.caption"]
    right = [Caption().correct(item, Caption().shortcut(item)) for item in items]
    # One object in a third of the clips, of which one direction and one speed in eight is guessed.
    assert np.mean(right) < 1 / 12


def test_a_caption_is_visual_words_between_filler() -> None:
    movers = (
        Mover("red", "circle", "left", "fast", (0, 0), 0, 0),
        Mover("white", "cross", "up", "slowly", (1, 1), 2, 0),
    )
    clip = Clip(8, movers, Backdrop())
    expected = ["two", "red", "circle", "left", "fast", "white", "cross", "up", "slowly"]
    texts = {caption(clip, stream(3, index)) for index in range(300)}
    assert all(visual_words(text) == expected for text in texts)
    assert len(texts) > 290  # paraphrases abound
    for text in texts:
        assert text.split() and text == " ".join(text.split()) and text.endswith(" .")


def test_no_filler_is_a_visual_word() -> None:
    fillers = " ".join((*OPENINGS, *NOUNS, *PAUSES, *ARTICLES, *VERBS, *PLACES, *LINKS)).split()
    assert not VISUAL_WORDS & set(fillers)


def test_filler_is_spread_over_its_phrases() -> None:
    clip = Clip(8, (Mover("red", "circle", "left", "fast", (0, 0), 0, 0),), Backdrop())
    texts = [caption(clip, stream(5, index)) for index in range(MANY)]
    for phrases in (OPENINGS, PAUSES, VERBS, PLACES):
        likely = 1 / len(phrases)
        for phrase in phrases:
            share = np.mean([f" {phrase} " in f" {text} " for text in texts])
            assert abs(share - likely) < 4 * standard_error(likely, MANY), phrase


def test_an_answer_as_long_as_the_longest_expected_loses_no_content() -> None:
    """A model's answer is cut there, and its filler may be longer than that of any of the items."""

    def longest(phrases: tuple[str, ...]) -> int:
        return max(len(phrase.split()) for phrase in phrases)

    place = longest(PLACES)
    one = longest(ARTICLES) + longest(VERBS) + place + 4
    possible = longest(OPENINGS) + 1 + longest(NOUNS) + longest(PAUSES) + 3 * one
    possible += 2 * longest(LINKS) + 1
    for seed in range(EVALUATION_SEED, EVALUATION_SEED + 20):
        expected = max(len(item.answer.split()) for item in Caption().items(24, seed))
        assert possible - (place + 1) <= expected <= possible


@pytest.mark.parametrize(
    ("change", "right"),
    [
        (lambda text: text, True),
        (lambda text: " ".join(visual_words(text)), True),
        (lambda text: text.replace(" moves ", " goes ") + " then , over the screen", True),
        (lambda text: text.replace(" two ", " three "), False),
        (lambda text: text.replace(" red ", " blue "), False),
        (lambda text: text.replace(" circle ", " "), False),
        (lambda text: text + " fast", False),
        (lambda text: " ".join(reversed(text.split())), False),
        (lambda text: "", False),
    ],
)
def test_captions_are_right_by_their_visual_words(change, right: bool) -> None:
    answer = "we see two things : a red circle moves left fast then a blue cross goes up slowly ."
    item = Item("", "describe the clip .", answer)
    assert Caption().correct(item, change(answer)) is right


def test_words_are_all_that_the_tasks_say(sets: dict[str, list[Item]]) -> None:
    said = {
        word
        for items in sets.values()
        for item in items
        for word in f"{item.prompt} {item.answer}".split()
    }
    assert said == set(words()) and len(words()) == len(set(words()))


def test_lengths_take_turns_and_are_named() -> None:
    items = Direction().items(6, EVALUATION_SEED)
    assert [len(item.images) for item in items] == [8, 16] * 3
    assert [item.facets["frames"] for item in items] == ["8", "16"] * 3
    assert all(item.context.split() == ["<image>"] * len(item.images) for item in items)


def test_shapes_differ_in_every_cell() -> None:
    assert set(SHAPES) == {
        seen.shape
        for index in range(40)
        for seen in look(paint(draw(stream(1, index), 8, ("up",)))[-1])
    }
