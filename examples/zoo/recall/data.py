"""Training rows of family `recall`: one haystack, then as many questions as are useful.

The haystacks are those of `effc.evaluate.tasks.recall`. Only there one question follows, here
several do, each with its answer: a haystack costs much to read and holds many answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from effc.evaluate.tasks.base import EVALUATION_SEED, stream
from effc.evaluate.tasks.haystack import Draw
from effc.evaluate.tasks.recall import (
    Associative,
    Copy,
    Needle,
    QuestionFirst,
    RecallTask,
    TwoHop,
)
from examples.zoo.words import BOS_ID, EOS_ID, SPECIALS

IGNORED = -100


@dataclass(frozen=True)
class Part:
    """A task's part in the training.

    Attributes:
        share: How often the task is drawn.
        asked: The most questions after a haystack.
        turn: Tokens of a question with its answer.
        spacing: Tokens of a haystack for every question; more than it has for every record.
        gates: Whether the curriculum waits for this task.
    """

    task: RecallTask
    share: float
    asked: int
    turn: int
    spacing: int
    gates: bool = True

    def questions(self, length: int) -> int:
        """Return how many questions follow a haystack of this length."""
        return max(1, min(self.asked, length // self.spacing))

    def tokens(self, length: int) -> int:
        """Return how long a training row is, its questions included."""
        return length + self.questions(length) * self.turn


# Copying teaches the step that all tasks share, finding what followed the same word before, at
# every word of an answer.
PARTS = (
    Part(Associative(), 0.2, asked=64, turn=4, spacing=4),
    Part(Needle(), 0.1, asked=64, turn=4, spacing=6),
    Part(QuestionFirst(), 0.2, asked=1, turn=3, spacing=64),
    Part(TwoHop(), 0.2, asked=64, turn=5, spacing=8, gates=False),
    Part(Copy(), 0.3, asked=16, turn=11, spacing=11),
)


def batch(part: Part, rows: int, length: int, seed: int, index: int) -> dict[str, Tensor]:
    """Draw a micro-batch of one task.

    Args:
        part: The task and how it is asked.
        rows: B.
        length: Tokens of bos, context and one question.
        seed: Of the run.
        index: Of the micro-batch in it.

    Returns:
        `input_ids` and `labels` [B, T]; labels are what the *next* token should be, or ignored.
    """
    if not 0 <= seed < EVALUATION_SEED:
        raise ValueError(f"training seeds are below {EVALUATION_SEED}; {seed} is for evaluation")
    draw = part.task.draw(stream(seed, index), rows, length, part.questions(length))
    ids, scored = lay_rows(draw)
    labels = np.where(scored[:, 1:], ids[:, 1:], IGNORED)
    return {
        "input_ids": torch.from_numpy(ids[:, :-1].copy()),
        "labels": torch.from_numpy(labels),
    }


def lay_rows(draw: Draw) -> tuple[np.ndarray, np.ndarray]:
    """Return token ids [B, T + 1] and which of them answer a question, eos included."""
    rows, asked, width = draw.answers.shape
    first = len(SPECIALS)
    ends = np.full((rows, asked, 1), EOS_ID)
    turns = np.concatenate([draw.questions + first, draw.answers + first, ends], axis=2)
    scored = np.zeros(turns.shape, dtype=np.bool_)
    scored[:, :, -width - 1 :] = True
    head = np.concatenate([np.full((rows, 1), BOS_ID), draw.context + first], axis=1)
    ids = np.concatenate([head, turns.reshape(rows, -1)], axis=1)
    return ids, np.concatenate([np.zeros(head.shape, bool), scored.reshape(rows, -1)], axis=1)
