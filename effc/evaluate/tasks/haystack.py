"""Haystacks of needles: records that all look alike, one of which is asked for.

A record is a key, what belongs to it, and `;`. Every key stands in at most one record, so there is
one right answer; every record may be the one asked for, so nothing in the haystack is idle.

Words are indices into `WORDS` here, and everything is drawn for B items at once: a set of items
and a batch of training rows come out of the same functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.int64]

ASK, FOLLOW, COPY, CUE, END = range(5)
MARKS = ("?", "follow", "copy", "=", ";")

_NOUNS = """
amber apple arrow autumn basket bell bird blue branch bread bridge bronze butter candle castle chair
cherry circle cloud copper coral cotton crystal desert dragon dream eagle earth ember evening falcon
feather field flame flower forest garden glass golden green harbour heart honey island ivory jacket
jungle kettle lantern lemon light marble meadow mirror morning mountain north ocean olive orange
paper pearl pepper river
"""
VALUES = tuple(_NOUNS.split())
# As many as the longest haystack of tests and training has records, and then some.
KEYS = tuple(
    first + vowel + second + end
    for first in "bdfghjklmnprstvz"
    for vowel in "aeiu"
    for second in "bdklmnst"
    for end in "aiou"
)
WORDS = (*MARKS, *VALUES, *KEYS)

FIRST_VALUE = len(MARKS)
FIRST_KEY = FIRST_VALUE + len(VALUES)
_LARGEST = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Draw:
    """B haystacks with Q questions each.

    Attributes:
        context: [B, S], what is read first.
        questions: [B, Q, n], each of which may follow the context.
        answers: [B, Q, m], what should follow them.
    """

    context: Words
    questions: Words
    answers: Words


def text(words: Sequence[int] | Words) -> str:
    """Write words as a text."""
    return " ".join(WORDS[word] for word in words)


def shuffle(rng: np.random.Generator, rows: int, size: int) -> Words:
    """Return [rows, size]: in every row the numbers below `size` in an order of its own."""
    return rng.integers(_LARGEST, size=(rows, size)).argsort(axis=1, kind="stable")


def draw_keys(rng: np.random.Generator, rows: int, count: int) -> Words:
    """Return [rows, count] keys, different from one another within a row."""
    return FIRST_KEY + shuffle(rng, rows, len(KEYS))[:, :count]


def draw_values(rng: np.random.Generator, rows: int, count: int) -> Words:
    """Return [rows, count] values."""
    return rng.integers(FIRST_VALUE, FIRST_KEY, size=(rows, count))


def make_records(*columns: Words) -> Words:
    """Put [rows, count] columns side by side and close the records: [rows, count, R]."""
    return np.stack([*columns, np.full_like(columns[0], END)], axis=2)


def lay_out(rng: np.random.Generator, records: Words, size: int) -> Words:
    """Spread records, in their order, over `size` words; values fill the gaps.

    Args:
        records: [B, N, R] with N R <= size.
        size: S, the number of words.

    Returns:
        [B, S].
    """
    rows, count, width = records.shape
    gaps = size - count * width
    is_record = shuffle(rng, rows, count + gaps) < count
    widths = np.where(is_record, width, 1)
    starts = (widths.cumsum(axis=1) - widths)[is_record].reshape(rows, count)
    context = draw_values(rng, rows, size)
    places = starts[:, :, None] + np.arange(width)
    context[np.arange(rows)[:, None, None], places] = records
    return context


def pick(rng: np.random.Generator, eligible: NDArray[np.bool_], count: int) -> Words:
    """Return [B, count] different columns of [B, N] that are eligible, in random order.

    Raises:
        ValueError: A row has fewer of them: the haystack is too short for the question.
    """
    if eligible.sum(axis=1).min() < count:
        raise ValueError(f"fewer than {count} records to ask for: the haystack is too short")
    numbers = rng.integers(_LARGEST, size=eligible.shape)
    return np.where(eligible, numbers, _LARGEST).argsort(axis=1, kind="stable")[:, :count]


def in_third(count: int, place: int | None) -> NDArray[np.bool_]:
    """Return [count]: which of so many records lie in third 0, 1 or 2; None means all."""
    if place is None:
        return np.ones(count, dtype=np.bool_)
    return np.arange(count) * 3 // count == place


def take(table: Words, ranks: Words) -> Words:
    """Return rows `ranks` [B, Q] of [B, N, ...]."""
    return table[np.arange(len(table))[:, None], ranks]


def after(mark: int, keys: Words) -> Words:
    """Return questions [B, Q, 2]: a mark and a key."""
    return np.stack([np.full_like(keys, mark), keys], axis=-1)
