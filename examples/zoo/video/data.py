"""Training rows of family `video`: a clip, all sorts of questions about it, and what is where.

A row is bos, the frames, then several blocks of question and answer. Each block stands right after
the frames as far as positions and attention are concerned, so that one clip is read once and asked
often, and every question is as it will be when it is the only one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from effc.evaluate.tasks import clips
from effc.evaluate.tasks.base import stream
from effc.evaluate.tasks.moving import DIRECTIONS, GRID, SHAPES, SPEEDS, Clip, paint
from effc.evaluate.tasks.rendering import COLOURS
from examples.zoo.video.model import FRAME_TOKENS, IMAGE_ID, IMAGE_MEAN, IMAGE_STD
from examples.zoo.words import BOS_ID, EOS_ID, PAD_ID, word_tokenizer

TASKS = (clips.Direction(), clips.Count(), clips.ColourOrder(), clips.Caption())
BLOCKS = 6  # questions about one clip, the caption apart
FILLER_WEIGHT = 0.2  # filler cannot be foreseen and would drown what can
UNKNOWN = -100  # a label that no loss counts
# Of visual tokens.
LABELS = (
    "filled",
    "colour",
    "shape",
    "place",
    "one_ago",
    "two_ago",
    "seen",
    "direction",
    "speed",
    "rank",
)


def tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer of the family: every word of the tasks is a token."""
    return word_tokenizer(clips.words())


@dataclass(frozen=True)
class Block:
    """A question with its answer; `task` is the place in `TASKS`."""

    task: int
    question: str
    answer: str


def draw_clip(rng: Generator, index: int, frames: int) -> tuple[Clip, list[Block]]:
    """Draw a clip as one of the tasks would, and questions of all tasks about it."""
    clip = TASKS[index % len(TASKS)].ask(rng, frames).clip
    blocks = [
        Block(0, clips.DIRECTION_QUESTION.format(mover.colour), mover.direction)
        for mover in clip.movers
    ]
    for direction in DIRECTIONS:
        there = clip.moving(direction)
        if len(clip.movers) == clips.MOST:
            answer = clips.COUNTS[len(there)]
            blocks.append(Block(1, clips.COUNT_QUESTION.format(direction), answer))
            if len(there) == 1:
                question = clips.COLOUR_QUESTION.format(direction)
                blocks.append(Block(2, question, there[0].colour))
    if len(clip.movers) == clips.MOST:
        blocks += [
            Block(2, clips.ORDER_QUESTION.format(word), mover.colour)
            for word, mover in zip(clips.ORDER, clip.movers, strict=True)
        ]
    chosen = [blocks[place] for place in rng.permutation(len(blocks))[:BLOCKS]]
    return clip, [*chosen, Block(3, clips.CAPTION_QUESTION, clips.caption(clip, rng))]


def batch(
    words: PreTrainedTokenizerFast,
    seed: int,
    first: int,
    count: int,
    frames: int,
    ask: bool = True,
) -> dict[str, Tensor]:
    """Return clips `first` to `first + count` of a seed, without questions if not asked to.

    Returns:
        input_ids, position_ids, block (0 for the clip, -1 for padding), target (the next token
        where it belongs to an answer, else `UNKNOWN`), weight and task of the target: [B, T];
        pixel_values [B * frames, 3, H, W]; every one of `LABELS` [B, frames * cells].
    """
    drawn = [draw_clip(stream(seed, first + row), first + row, frames) for row in range(count)]
    pixels = np.concatenate([paint(clip) for clip, _ in drawn])
    labels = [cell_labels(clip) for clip, _ in drawn]
    table = words.get_vocab()
    rows = _join([_row(table, blocks if ask else [], frames) for _, blocks in drawn])
    return {
        **{name: torch.from_numpy(part) for name, part in rows.items()},
        **{name: torch.from_numpy(np.stack([each[name] for each in labels])) for name in labels[0]},
        "pixel_values": normalize(pixels),
    }


def normalize(pixels: NDArray[np.uint8]) -> Tensor:
    """Scale frames [N, H, W, 3] as the preprocessor of the checkpoint does, to [N, 3, H, W]."""
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - IMAGE_MEAN) / IMAGE_STD


def cell_labels(clip: Clip) -> dict[str, NDArray[np.int64]]:
    """Say of every cell of every frame, [frames * cells], what it shows.

    `filled`: whether something is there; `colour`, `shape`, `place`: what, and where. `one_ago`,
    `two_ago`: the cell where it was so many frames ago. `direction`, `speed`: how it moves; known
    once it was seen to step, and from its third frame on. `rank`: which in the order of appearance
    it is; `seen`: which the latest object until then is.

    Most cells are empty and easily told from others: empty ones count in the first row only.
    """
    shape = (clip.frames, GRID, GRID)
    labels = {name: np.full(shape, UNKNOWN) for name in LABELS}
    labels["filled"][:, 0] = 0
    appears = [mover.appears for mover in clip.movers]
    for rank, mover in enumerate(clip.movers):
        cells = mover.cells(clip.frames)[mover.appears :]
        at = (np.arange(mover.appears, clip.frames), *cells.T)
        place = cells @ (GRID, 1)
        since = np.arange(len(cells))
        stepped = np.logical_or.accumulate(place != place[0])
        labels["filled"][at] = 1
        labels["colour"][at] = tuple(COLOURS).index(mover.colour)
        labels["shape"][at] = SHAPES.index(mover.shape)
        labels["place"][at] = place
        for ago, name in enumerate(("one_ago", "two_ago"), start=1):
            labels[name][at] = np.where(since >= ago, np.roll(place, ago), UNKNOWN)
        way = tuple(DIRECTIONS).index(mover.direction)
        labels["direction"][at] = np.where(stepped, way, UNKNOWN)
        labels["speed"][at] = np.where(since >= 2, tuple(SPEEDS).index(mover.speed), UNKNOWN)
        labels["rank"][at] = rank
        labels["seen"][at] = np.searchsorted(appears, at[0], side="right") - 1
    return {name: label.reshape(-1) for name, label in labels.items()}


def _row(
    table: dict[str, int], blocks: Sequence[Block], frames: int
) -> dict[str, NDArray[np.generic]]:
    """Lay a row out; what a position predicts is stored at that position."""
    clip = 1 + frames * FRAME_TOKENS
    ids = [BOS_ID, *[IMAGE_ID] * (clip - 1)]
    places, block = list(range(clip)), [0] * clip
    target, weight, task = [UNKNOWN] * clip, [0.0] * clip, [0] * clip
    for number, each in enumerate(blocks, start=1):
        question, answer = each.question.split(), each.answer.split()
        tokens = [table[word] for word in (*question, *answer)]
        silent = len(question) - 1
        filler = [each.task == 3 and word not in clips.VISUAL_WORDS for word in answer]
        ids += tokens
        places += range(clip, clip + len(tokens))
        block += [number] * len(tokens)
        target += [UNKNOWN] * silent + tokens[len(question) :] + [EOS_ID]
        weight += [0.0] * silent + [FILLER_WEIGHT if part else 1.0 for part in filler] + [1.0]
        task += [each.task] * len(tokens)
    lists = {"input_ids": ids, "position_ids": places, "block": block, "target": target}
    row: dict[str, NDArray[np.generic]] = {
        name: np.array(part, np.int64) for name, part in lists.items()
    }
    return {**row, "weight": np.array(weight, np.float32), "task": np.array(task, np.int64)}


_PADDING = {"input_ids": PAD_ID, "block": -1, "target": UNKNOWN}


def _join(rows: Sequence[dict[str, NDArray[np.generic]]]) -> dict[str, NDArray[np.generic]]:
    """Stack rows, padded on the right to the longest."""
    longest = max(len(row["input_ids"]) for row in rows)
    joined = {}
    for name, first in rows[0].items():
        joined[name] = np.full((len(rows), longest), _PADDING.get(name, 0), first.dtype)
        for place, row in enumerate(rows):
            joined[name][place, : len(row[name])] = row[name]
    return joined


def attention_mask(block: Tensor) -> Tensor:
    """Let a token see the clip and its own block up to itself.

    Args:
        block: Number of the block of every token, 0 for the clip, -1 for padding, [B, T].

    Returns:
        Who sees whom, bool [B, 1, T, T]; padding sees itself, a row without any would be NaN.
    """
    own = block[:, :, None] == block[:, None, :]
    clip = block[:, None, :] == 0
    return ((own | clip).tril())[:, None]
