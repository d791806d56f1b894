"""Evaluate family `recall` beside an untrained copy, a shortcut and chance."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from examples.zoo.recall import card
from examples.zoo.recall.curriculum import LENGTHS, NEXT_AT
from examples.zoo.recall.data import PARTS
from examples.zoo.recall.model import build
from examples.zoo.scores import score_table

# A multiple of nine: three lengths times three places.
ITEMS = 180


def evaluate(checkpoint: Path, limit: int | None = None, write_card: bool = False) -> None:
    """Print the scores of a checkpoint and of its baselines.

    Args:
        checkpoint: A folder as `train` writes it.
        limit: Use this many items per task only.
        write_card: Also write the figures into the folder's README.md.
    """
    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    training = json.loads((checkpoint / "training.json").read_text())
    untrained = build(model.config, training["seed"]).eval()
    names = [part.task.name for part in PARTS]
    table = score_table(checkpoint, untrained, names, limit or ITEMS)
    print(table)
    if write_card:
        text = card.render(model, training, table, LENGTHS[0], NEXT_AT)
        (checkpoint / "README.md").write_text(text)
