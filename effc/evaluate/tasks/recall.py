"""Recall over long contexts: find a record among many that look just like it.

All tasks use one kind of record, `key value ;`, so one model learns them all. They differ in what
is between the records, in when the question is asked, and in how many records it takes. A cache
method that keeps what looks unusual keeps nothing here that others would not: at least half of
every haystack could have been asked for.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from effc.evaluate.tasks import haystack
from effc.evaluate.tasks.base import Item, Task, stream
from effc.evaluate.tasks.haystack import ASK, COPY, CUE, FOLLOW, KEYS, MARKS, VALUES, Draw

PLACES = ("early", "middle", "late")


@dataclass(frozen=True)
class RecallTask(Task):
    """What the tasks share: items whose lengths and places take turns.

    Attributes:
        lengths: Tokens of a prompt, bos included.
    """

    lengths: tuple[int, ...] = (256, 1024, 4096)

    def draw(
        self,
        rng: np.random.Generator,
        rows: int,
        length: int,
        asked: int = 1,
        place: int | None = None,
    ) -> Draw:
        """Draw B haystacks with Q questions each.

        Args:
            rng: Where the randomness comes from.
            rows: B.
            length: Tokens of bos, context and one question.
            asked: Q.
            place: The third of the records that holds the answer; None leaves it open.

        Raises:
            ValueError: The haystack has fewer records to ask for.
        """
        raise NotImplementedError

    def items(self, count: int, seed: int) -> list[Item]:
        """The first `count` items of a seed; every length meets every place."""
        return [self._item(seed, index) for index in range(count)]

    def _item(self, seed: int, index: int) -> Item:
        turn, which = divmod(index, len(self.lengths))
        length, place = self.lengths[which], turn % len(PLACES)
        draw = self.draw(stream(seed, index), 1, length, place=place)
        return Item(
            context=haystack.text(draw.context[0]),
            question=haystack.text(draw.questions[0, 0]),
            answer=haystack.text(draw.answers[0, 0]),
            facets={"length": str(length), "place": PLACES[place]},
        )

    def shortcut(self, item: Item) -> str:
        """The content of the last record."""
        words = item.context.split()
        end = len(words) - 1 - words[::-1].index(MARKS[haystack.END])
        return " ".join(words[end - len(item.answer.split()) : end])

    def oracle(self, item: Item) -> list[int]:
        """Places of the words of the context that suffice to answer."""
        return _record(item, item.question.split()[-1])


@dataclass(frozen=True)
class Associative(RecallTask):
    """`key value ; key value ; ...` and then `? key`."""

    name: ClassVar[str] = "recall.associative"
    summary: ClassVar[str] = "the value of one key among hundreds; nothing but records"
    chance: ClassVar[float] = 1 / len(VALUES)
    density: ClassVar[float] = 1.0

    def draw(
        self,
        rng: np.random.Generator,
        rows: int,
        length: int,
        asked: int = 1,
        place: int | None = None,
    ) -> Draw:
        """See `RecallTask.draw`."""
        size = length - 3
        count = int(size * self.density) // 3
        keys = haystack.draw_keys(rng, rows, count)
        values = haystack.draw_values(rng, rows, count)
        context = haystack.lay_out(rng, haystack.make_records(keys, values), size)
        eligible = np.broadcast_to(haystack.in_third(count, place), keys.shape)
        ranks = haystack.pick(rng, eligible, asked)
        questions = haystack.after(ASK, haystack.take(keys, ranks))
        return Draw(context, questions, haystack.take(values, ranks)[:, :, None])


@dataclass(frozen=True)
class Needle(Associative):
    """The same with values strewn between the records, so that records must be told from chaff."""

    name: ClassVar[str] = "recall.needle"
    summary: ClassVar[str] = (
        "the value of one key; 60 % of the haystack are records, the rest chaff"
    )
    density: ClassVar[float] = 0.6


@dataclass(frozen=True)
class QuestionFirst(RecallTask):
    """`? key` stands before the records; `=` asks for the value."""

    name: ClassVar[str] = "recall.question-first"
    summary: ClassVar[str] = "the question stands before the haystack, a cue after it"
    chance: ClassVar[float] = 1 / len(VALUES)

    def draw(
        self,
        rng: np.random.Generator,
        rows: int,
        length: int,
        asked: int = 1,
        place: int | None = None,
    ) -> Draw:
        """See `RecallTask.draw`; there is room for one question."""
        if asked != 1:
            raise ValueError("one question stands before a haystack")
        inner = Associative().draw(rng, rows, length - 1, 1, place)
        context = np.concatenate([inner.questions[:, 0], inner.context], axis=1)
        return Draw(context, np.full((rows, 1, 1), CUE), inner.answers)

    def oracle(self, item: Item) -> list[int]:
        """The question, and the record that it asks for."""
        return [0, 1, *_record(item, item.context.split()[1], start=2)]


@dataclass(frozen=True)
class TwoHop(RecallTask):
    """`a b ;` and elsewhere `b value ;`, then `follow a`: the answer is `b value`."""

    name: ClassVar[str] = "recall.two-hop"
    summary: ClassVar[str] = "a key leads to a key, that one to a value; both are asked for"
    chance: ClassVar[float] = 1 / (len(KEYS) * len(VALUES))

    def draw(
        self,
        rng: np.random.Generator,
        rows: int,
        length: int,
        asked: int = 1,
        place: int | None = None,
    ) -> Draw:
        """See `RecallTask.draw`; the place is that of the second record."""
        size = length - 3
        pairs = size // 6
        keys = haystack.draw_keys(rng, rows, 2 * pairs)
        first, second = keys[:, :pairs], keys[:, pairs:]
        values = haystack.draw_values(rng, rows, pairs)
        # Links come first in this table, and the record that link i leads to is number pairs + i.
        records = haystack.make_records(keys, np.concatenate([second, values], axis=1))
        order = haystack.shuffle(rng, rows, 2 * pairs)
        context = haystack.lay_out(rng, haystack.take(records, order), size)
        eligible = haystack.in_third(2 * pairs, place) & (order >= pairs)
        chosen = haystack.take(order, haystack.pick(rng, eligible, asked)) - pairs
        questions = haystack.after(FOLLOW, haystack.take(first, chosen))
        answers = np.stack([haystack.take(part, chosen) for part in (second, values)], axis=2)
        return Draw(context, questions, answers)

    def shortcut(self, item: Item) -> str:
        """The last record that ends with a value."""
        words = item.context.split()
        ends = [at for at, word in enumerate(words) if word == MARKS[haystack.END]]
        last = next(at for at in reversed(ends) if words[at - 1] in VALUES)
        return " ".join(words[last - 2 : last])

    def oracle(self, item: Item) -> list[int]:
        """Both records."""
        link = _record(item, item.question.split()[-1])
        return sorted({*link, *_record(item, item.context.split()[link[1]])})


@dataclass(frozen=True)
class Copy(RecallTask):
    """`key word word ... ;` and then `copy key`: a span, not one word.

    Attributes:
        span: Words to copy.
    """

    name: ClassVar[str] = "recall.copy"
    summary: ClassVar[str] = "a span of eight words that stands behind a key"
    chance: ClassVar[float] = 0.0
    span: int = 8

    def draw(
        self,
        rng: np.random.Generator,
        rows: int,
        length: int,
        asked: int = 1,
        place: int | None = None,
    ) -> Draw:
        """See `RecallTask.draw`. No word but the chaff stands in a haystack twice."""
        size, width = length - 3, 1 + self.span
        count = min(size // (width + 1), len(KEYS) // width)
        words = haystack.draw_keys(rng, rows, count * width).reshape(rows, count, width)
        records = haystack.make_records(*np.moveaxis(words, 2, 0))
        context = haystack.lay_out(rng, records, size)
        eligible = np.broadcast_to(haystack.in_third(count, place), (rows, count))
        chosen = haystack.take(words, haystack.pick(rng, eligible, asked))
        return Draw(context, haystack.after(COPY, chosen[:, :, 0]), chosen[:, :, 1:])


def rare_words(item: Item, share: float) -> list[int]:
    """Places of the rarest words of a context, earlier ones first among equals.

    What a method keeps that takes the unusual for the important; a budget is worth reporting where
    this loses clearly.

    Args:
        item: Whose context is looked at.
        share: The part of the context's words to keep, rounded up.
    """
    words = item.context.split()
    counts = Counter(words)
    order = sorted(range(len(words)), key=lambda place: counts[words[place]])
    return sorted(order[: math.ceil(share * len(words))])


def _record(item: Item, key: str, start: int = 0) -> list[int]:
    """Return the places of the record that a key begins, its end included."""
    words = item.context.split()
    ends = [end for end, word in enumerate(words) if word == MARKS[haystack.END]]
    # A key that is what another one leads to is not at the beginning of that record.
    begins = [
        place
        for place, word in enumerate(words)
        if word == key and place >= start and words[place + 1] != MARKS[haystack.END]
    ]
    end = next(end for end in ends if end > begins[0])
    return list(range(begins[0], end + 1))
