"""Evaluate family `video` beside an untrained copy, itself with its eyes shut, and a shortcut."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import LlavaForConditionalGeneration
from transformers.utils import logging

from effc.evaluate.answering import Answerer
from effc.evaluate.scoring import ITEMS
from effc.evaluate.tasks.base import EVALUATION_SEED, Item
from effc.evaluate.tasks.clips import Caption
from effc.progress import SILENT, Progress
from examples.zoo.scores import answers_of, score_table
from examples.zoo.video import card
from examples.zoo.video.data import TASKS
from examples.zoo.video.model import build

EXAMPLES = 3


@dataclass(frozen=True)
class Looking:
    """Answers items whose images were changed first.

    Attributes:
        answerer: Who answers.
        change: Makes the images that are shown of the item's own.
    """

    answerer: Answerer
    change: Callable[[Item], Item]

    def answer(
        self, items: Sequence[Item], max_new_tokens: int | None = None, progress: Progress = SILENT
    ) -> list[str]:
        """See `effc.evaluate.answering.Answerer.answer`."""
        return self.answerer.answer([self.change(i) for i in items], max_new_tokens, progress)


def without_images(item: Item) -> Item:
    """Return the item with every frame grey: what is left is the question."""
    return replace(item, images=tuple(np.full_like(image, 90) for image in item.images))


def last_frame_only(item: Item) -> Item:
    """Return the item with its last frame in place of all: things are there, nothing moves."""
    return replace(item, images=item.images[-1:] * len(item.images))


def evaluate(checkpoint: Path, limit: int | None = None, write_card: bool = False) -> None:
    """Print the scores of a checkpoint and of its baselines.

    Args:
        checkpoint: A folder as `train` writes it.
        limit: Use this many items per task only.
        write_card: Also write the figures and some captions into the folder's README.md.
    """
    logging.disable_progress_bar()
    load = LlavaForConditionalGeneration.from_pretrained
    model = load(checkpoint, dtype=torch.float32).eval()
    training = json.loads((checkpoint / "training.json").read_text())
    untrained = build(model.config, training["seed"]).eval()
    trained = answers_of(checkpoint)
    also = {
        "blind": Looking(trained, without_images),
        "last frame": Looking(trained, last_frame_only),
    }
    table = score_table(checkpoint, untrained, TASKS, limit or ITEMS, also)
    print(table)
    items = Caption().items(EXAMPLES, EVALUATION_SEED)
    examples = [
        card.Example(item.answer, said)
        for item, said in zip(items, trained.answer(items), strict=True)
    ]
    for example in examples:
        print(f"expected  {example.expected}\nsaid      {example.said}\n")
    if write_card:
        text = card.render(model, training, table, examples)
        (checkpoint / "README.md").write_text(text)
