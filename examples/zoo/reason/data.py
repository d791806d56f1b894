"""Training rows of family `reason`: problems with traces, short ones first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from numpy.random import Generator
from torch import Tensor

from effc.evaluate.tasks.base import EVALUATION_SEED, stream
from effc.evaluate.tasks.programs import MAX_STEPS
from effc.evaluate.tasks.reason import DETOURS, WORDS, Worked, work_program, work_tree
from effc.evaluate.tasks.traces import draw_habit
from effc.evaluate.tasks.trees import MAX_DEPTH
from examples.zoo.words import BOS_ID, EOS_ID, PAD_ID, vocabulary

STEP_TOKENS = 4096
MICRO_TOKENS = 1536
# No step holds as many rows, so every row of a run has an index of its own.
MAX_ROWS = 256
IGNORED = -100

# (share of the budget, largest number of statements and depth from there on)
SIZES = ((0.0, 3), (0.12, 6), (0.25, 10), (0.4, MAX_STEPS))

_IDS = {word: index for index, word in enumerate(vocabulary(WORDS))}


def draw_worked(rng: Generator, size: int) -> Worked:
    """Draw a problem of either kind, at most of a size, with a trace in a random habit."""
    habit = draw_habit(rng)
    if rng.integers(2):
        return work_program(rng, int(rng.integers(1, min(size, MAX_STEPS) + 1)), habit)
    depth = int(rng.integers(2, min(size, MAX_DEPTH) + 1))
    detours = int(rng.integers(min(size // 4, 4), min(2 * size, DETOURS) + 1))
    return work_tree(rng, depth, detours, habit)


def rows(seed: int, step: int, progress: float) -> list[tuple[list[int], int]]:
    """Return the rows of one step: token ids, and how many of them are the prompt.

    A step has about `STEP_TOKENS` tokens, whatever the size of its problems.

    Raises:
        ValueError: The seed belongs to evaluation.
    """
    if not 0 <= seed < EVALUATION_SEED:
        raise ValueError(f"training seeds are 0 to {EVALUATION_SEED - 1}, not {seed}")
    size = next(largest for share, largest in reversed(SIZES) if progress >= share)
    drawn: list[tuple[list[int], int]] = []
    tokens = 0
    while tokens < STEP_TOKENS:
        worked = draw_worked(stream(seed, step * MAX_ROWS + len(drawn)), size)
        prompt = [BOS_ID, *encode(worked.context), *encode(worked.question)]
        drawn.append(([*prompt, *encode(worked.trace.text), EOS_ID], len(prompt)))
        tokens += len(drawn[-1][0])
    return drawn


def encode(text: str) -> Iterable[int]:
    """Look every word up, as the tokenizer does, many times faster."""
    return (_IDS[word] for word in text.split())


def batches(seed: int, step: int, progress: float) -> list[dict[str, Tensor]]:
    """Return a step's rows as micro-batches of similar lengths, padded on the right.

    Returns:
        For each, "input_ids" [B, T], "labels" [B, T] with the prompt and padding ignored, and
        "weight" []: what to multiply a sum over tokens by, for the mean over micro-batches to be
        the mean over all tokens of the step.
    """
    drawn = sorted(rows(seed, step, progress), key=lambda row: len(row[0]))
    groups: list[list[tuple[list[int], int]]] = [[]]
    for row in drawn:
        if (len(groups[-1]) + 1) * len(row[0]) > MICRO_TOKENS:
            groups.append([])
        groups[-1].append(row)
    answered = sum(len(ids) - prompt for ids, prompt in drawn)
    return [_pad(group, len(groups) / answered) for group in groups]


def _pad(group: Sequence[tuple[list[int], int]], weight: float) -> dict[str, Tensor]:
    shape = (len(group), max(len(ids) for ids, _ in group))
    tokens, labels = torch.full(shape, PAD_ID), torch.full(shape, IGNORED)
    for row, (ids, prompt) in enumerate(group):
        tokens[row, : len(ids)] = torch.tensor(ids)
        labels[row, prompt : len(ids)] = tokens[row, prompt : len(ids)]
    return {"input_ids": tokens, "labels": labels, "weight": torch.tensor(weight)}
