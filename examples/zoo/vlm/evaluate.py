"""Evaluate family `vlm` beside an untrained copy, itself before wrong pictures, and a shortcut."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import LlavaForConditionalGeneration
from transformers.utils import logging

from effc.evaluate.answering import Answerer
from effc.evaluate.scoring import ITEMS
from effc.evaluate.tasks.base import Item
from effc.progress import SILENT, Progress
from examples.zoo.scores import answers_of, score_table
from examples.zoo.vlm import card
from examples.zoo.vlm.model import build

TASKS = tuple(
    f"scene.{name}" for name in ("attribute", "exists", "count", "relation", "row", "images")
)


@dataclass(frozen=True)
class Misled:
    """Answers each item before the pictures of the next one: the question is all it can use."""

    answerer: Answerer

    def answer(
        self, items: Sequence[Item], max_new_tokens: int | None = None, progress: Progress = SILENT
    ) -> list[str]:
        """See `effc.evaluate.answering.Answerer.answer`."""
        turned = [*items[1:], *items[:1]]
        misled = [
            replace(item, images=other.images) for item, other in zip(items, turned, strict=True)
        ]
        return self.answerer.answer(misled, max_new_tokens, progress)


def evaluate(checkpoint: Path, limit: int | None = None, write_card: bool = False) -> None:
    """Print the scores of a checkpoint and of its baselines.

    Args:
        checkpoint: A folder as `train` writes it.
        limit: Use this many items per task only.
        write_card: Also write the figures into the folder's README.md.
    """
    logging.disable_progress_bar()
    load = LlavaForConditionalGeneration.from_pretrained
    model = load(checkpoint, dtype=torch.float32).eval()
    training = json.loads((checkpoint / "training.json").read_text())
    untrained = build(model.config, training["seed"]).eval()
    also = {"other picture": Misled(answers_of(checkpoint))}
    table = score_table(checkpoint, untrained, TASKS, limit or ITEMS, also)
    print(table)
    if write_card:
        (checkpoint / "README.md").write_text(card.render(model, training, table))
