"""What a task is: items with one right answer each, made from a seed.

Numpy and the standard library only, so that tasks can be made and checked where no model can run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

EVALUATION_SEED = 1_000_000
"""Seeds from here on are for evaluation, those below for training, so the two cannot meet."""

IMAGE_WORD = "<image>"
"""Stands in a text where an image is read."""


@dataclass(frozen=True, eq=False)
class Item:
    """A question with one right answer. Items are equal when their canonical bytes are.

    Attributes:
        context: what a cache method may compress once it was read.
        question: read after the context.
        answer: the expected continuation; the model is to say eos after it.
        images: `[H, W, 3]` each, one for every `IMAGE_WORD` of the prompt, in order.
        facets: properties by which figures are split, such as {"place": "early"}.
    """

    context: str
    question: str
    answer: str
    images: tuple[NDArray[np.uint8], ...] = ()
    facets: Mapping[str, str] = field(default_factory=dict)

    @property
    def prompt(self) -> str:
        """Context and question, with one space between them where both are there."""
        return " ".join(part for part in (self.context, self.question) if part)

    def canonical_bytes(self) -> bytes:
        """The item as bytes, the same on every machine; no two items share them."""
        texts = [self.context, self.question, self.answer, sorted(self.facets.items())]
        shapes = [list(image.shape) for image in self.images]
        head = json.dumps([texts, shapes], ensure_ascii=True, separators=(",", ":")).encode()
        pixels = b"".join(np.ascontiguousarray(image).tobytes() for image in self.images)
        return len(head).to_bytes(8, "little") + head + pixels

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Item):
            return NotImplemented
        return self.canonical_bytes() == other.canonical_bytes()

    def __hash__(self) -> int:
        return hash(self.canonical_bytes())


class Task(Protocol):
    """A family of items; a frozen dataclass that names this class as its base.

    Attributes:
        name: "family.task".
        summary: one line for people.
        chance: accuracy of a uniform guess among the possible answers.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    chance: ClassVar[float]

    def items(self, count: int, seed: int) -> list[Item]:
        """The first `count` items of a seed.

        A function of its arguments alone, and item i does not depend on `count`: draw each from
        `stream(seed, i)`.
        """
        ...

    def shortcut(self, item: Item) -> str:
        """What someone answers who did not do the task: the last value seen, the most common."""
        ...

    def correct(self, item: Item, text: str) -> bool:
        """Whether a model's text answers the item: exactly, but for space at the ends."""
        return text.strip() == item.answer.strip()


def stream(seed: int, index: int) -> np.random.Generator:
    """The random numbers of one item.

    Draw with `integers`, `permutation` and `choice` only: floats would differ between machines.

    Args:
        seed: of the set of items.
        index: of the item in it.
    """
    return np.random.Generator(np.random.PCG64([seed, index]))


def held_out(key: str, parts: int = 8) -> bool:
    """Whether an item belongs to evaluation where seeds alone cannot keep the sets apart.

    Args:
        key: what makes the item this item, such as its prompt.
        parts: one of this many keys is held out.
    """
    digest = hashlib.sha256(key.encode()).digest()
    return int.from_bytes(digest[:8], "little") % parts == 0


def checksum(task: Task, count: int, seed: int) -> str:
    """SHA-256 of the first `count` items of a seed, as hexadecimal digits."""
    digest = hashlib.sha256()
    for item in task.items(count, seed):
        data = item.canonical_bytes()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()
