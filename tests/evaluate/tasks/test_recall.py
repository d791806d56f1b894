"""Recall tasks: one right answer each, found by reading, and no cheaper way to it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effc.evaluate.tasks import haystack
from effc.evaluate.tasks.base import EVALUATION_SEED, Item
from effc.evaluate.tasks.haystack import KEYS, MARKS, VALUES, WORDS
from effc.evaluate.tasks.recall import (
    PLACES,
    Associative,
    Copy,
    Needle,
    QuestionFirst,
    RecallTask,
    TwoHop,
    rare_words,
)

TASKS = (Associative(), Needle(), QuestionFirst(), TwoHop(), Copy())
LENGTHS = (64, 256, 1000)
SHORT = tuple(replace(task, lengths=LENGTHS) for task in TASKS)
each_task = pytest.mark.parametrize("task", SHORT, ids=lambda task: task.name)


def records(item: Item) -> dict[str, list[str]]:
    """Read a haystack as a person would: a key, then words up to `;`. Chaff is no key."""
    text = re.sub(r"^\? \w+ ", "", item.context)
    found: dict[str, list[str]] = {}
    for piece in text.split(" ;")[:-1]:
        words = piece.split()
        while words[0] in VALUES:
            words.pop(0)
        assert words[0] not in found, "a key begins two records"
        found[words[0]] = words[1:]
    return found


def answer_by_reading(item: Item) -> str:
    table, question = records(item), item.prompt.split()
    if question[-2] == "follow":
        key = table[question[-1]][0]
        return " ".join([key, *table[key]])
    key = question[1] if question[-1] == "=" else question[-1]
    return " ".join(table[key])


def test_words_differ_and_have_no_spaces() -> None:
    assert len(set(WORDS)) == len(WORDS) == len(MARKS) + len(VALUES) + len(KEYS)
    assert all(word.split() == [word] for word in WORDS)
    assert WORDS[haystack.FIRST_VALUE] == VALUES[0] and WORDS[haystack.FIRST_KEY] == KEYS[0]
    marks = (haystack.ASK, haystack.FOLLOW, haystack.COPY, haystack.CUE, haystack.END)
    assert tuple(WORDS[mark] for mark in marks) == MARKS


@each_task
def test_answer_is_what_a_reader_finds(task: RecallTask) -> None:
    for item in task.items(30, EVALUATION_SEED):
        assert item.answer == answer_by_reading(item)
        assert task.correct(item, f" {item.answer} ")
        assert not task.correct(item, f"{item.answer} {item.answer}")


@each_task
def test_prompts_have_the_length_they_name_and_every_length_meets_every_place(
    task: RecallTask,
) -> None:
    items = task.items(18, EVALUATION_SEED)
    assert [len(item.prompt.split()) + 1 for item in items] == list(LENGTHS) * 6
    met = Counter((item.facets["length"], item.facets["place"]) for item in items)
    assert set(met.values()) == {2} and len(met) == len(LENGTHS) * len(PLACES)


@each_task
def test_place_is_the_third_of_the_haystack_that_holds_the_answer(task: RecallTask) -> None:
    for item in replace(task, lengths=(1000,)).items(60, EVALUATION_SEED):
        words = item.context.split()
        found = [place for place in task.oracle(item) if words[place] == item.answer.split()[-1]]
        share = found[0] / len(words)
        # Thirds are those of the records; chaff and links shift them by its random clustering.
        low = PLACES.index(item.facets["place"]) / 3
        assert low - 0.1 < share < low + 1 / 3 + 0.1


@each_task
def test_items_depend_on_seed_and_index_alone(task: RecallTask) -> None:
    assert task.items(7, EVALUATION_SEED)[:3] == task.items(3, EVALUATION_SEED)
    one, other = (set(task.items(9, EVALUATION_SEED + seed)) for seed in (0, 1))
    assert len(one) == len(other) == 9 and not one & other


@each_task
def test_oracle_words_alone_determine_the_answer(task: RecallTask) -> None:
    for item in task.items(30, EVALUATION_SEED):
        words, kept = item.context.split(), task.oracle(item)
        assert kept == sorted(set(kept))
        rest = replace(item, context=" ".join(words[place] for place in kept))
        assert answer_by_reading(rest) == item.answer
        assert len(kept) <= 12


@each_task
def test_most_of_a_haystack_could_have_been_asked_for(task: RecallTask) -> None:
    for item in replace(task, lengths=(256, 4096)).items(6, EVALUATION_SEED):
        needles = sum(2 + len(rest) for rest in records(item).values())
        assert needles >= 0.5 * len(item.context.split())


@each_task
def test_shortcut_is_the_content_of_the_last_record_and_seldom_right(task: RecallTask) -> None:
    items = replace(task, lengths=(256,)).items(200, EVALUATION_SEED)
    for item in items[:20]:
        pairs = list(records(item).items())
        if isinstance(task, TwoHop):
            expected = [[key, *rest] for key, rest in pairs if rest[0] in VALUES][-1]
        else:
            expected = pairs[-1][1]
        assert task.shortcut(item) == " ".join(expected)
    # The last record is the right one as often as any other; five standard errors are allowed.
    chance = max(task.chance, 1 / len(records(items[0])))
    right = sum(task.correct(item, task.shortcut(item)) for item in items)
    assert right / len(items) <= chance + 5 * np.sqrt(chance / len(items))


@each_task
@pytest.mark.parametrize("share", [0.05, 0.25, 0.5])
def test_rare_words_hold_no_answer_at_small_budgets(task: RecallTask, share: float) -> None:
    complete = 0
    items = replace(task, lengths=(1000,)).items(60, EVALUATION_SEED)
    for item in items:
        kept = rare_words(item, share)
        assert len(kept) == int(np.ceil(share * len(item.context.split())))
        complete += set(task.oracle(item)) <= set(kept)
    # A method that keeps all that is rare loses at least ten points against the oracle.
    assert complete / len(items) <= 0.9


def test_rare_words_are_the_rarest_by_count() -> None:
    item = Item("a b a c b a d", "?", "")
    assert rare_words(item, 2 / 7) == [3, 6]
    assert rare_words(item, 0.3) == [1, 3, 6]
    assert rare_words(item, 1.0) == list(range(7))


@settings(deadline=None, max_examples=30, derandomize=True)
@given(st.integers(1, 5), st.integers(1, 20), st.integers(2, 5), st.integers(0, 40))
def test_records_are_laid_out_in_order_and_whole(
    rows: int, count: int, width: int, chaff: int
) -> None:
    rng = np.random.Generator(np.random.PCG64(rows))
    marked = -1 - np.arange(rows * count * width).reshape(rows, count, width)
    context = haystack.lay_out(rng, marked, count * width + chaff)
    assert context.shape == (rows, count * width + chaff)
    for row, expected in zip(context, marked, strict=True):
        assert row[row < 0].tolist() == expected.flatten().tolist()
        starts = np.flatnonzero(np.isin(row, expected[:, 0]))
        assert all((row[start : start + width] < 0).all() for start in starts)
        assert np.isin(row[row >= 0], range(haystack.FIRST_VALUE, haystack.FIRST_KEY)).all()


def test_many_questions_of_a_draw_are_different_records() -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    for task, asked in zip(TASKS, (20, 12, 1, 10, 6), strict=True):
        draw = task.draw(rng, 3, 64, asked)
        assert draw.questions.shape[:2] == draw.answers.shape[:2] == (3, asked)
        for row in range(3):
            questions = {tuple(question) for question in draw.questions[row].tolist()}
            assert len(questions) == asked
            for question, answer in zip(draw.questions[row], draw.answers[row], strict=True):
                texts = [haystack.text(part) for part in (draw.context[row], question, answer)]
                assert answer_by_reading(Item(*texts)) == texts[2]


def test_more_questions_than_records_are_refused() -> None:
    rng = np.random.Generator(np.random.PCG64(0))
    with pytest.raises(ValueError, match="fewer than 21 records"):
        Associative().draw(rng, 1, 64, 21)
    with pytest.raises(ValueError, match="one question stands before"):
        QuestionFirst().draw(rng, 1, 64, 2)


def test_answers_are_spread_evenly_over_values() -> None:
    answers = Counter(
        item.answer for item in replace(Associative(), lengths=(32,)).items(6400, EVALUATION_SEED)
    )
    # Chi square over 63 degrees of freedom: 113 is exceeded once in ten thousand seeds.
    assert sum((answers[value] - 100) ** 2 / 100 for value in VALUES) < 113
