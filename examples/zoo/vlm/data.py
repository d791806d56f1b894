"""Training rows of family `vlm`: images once, then many questions that do not see one another.

A row is bos, the images, then questions with their answers. Each question reads the images and
itself only, and its positions go on where the images end: exactly what it would see alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from effc.evaluate.tasks import scenes
from effc.evaluate.tasks.base import IMAGE_WORD
from effc.evaluate.tasks.layout import Scene, distinct_scene, two_rows
from effc.evaluate.tasks.scenes import Query
from examples.zoo.vlm.model import IMAGE_TOKENS, TOKENS
from examples.zoo.words import BOS, EOS_ID, PAD_ID

IMAGE_MEAN, IMAGE_STD = 0.4, 0.25
IGNORED = -100
TASKS = ("attribute", "relation", "exists", "count", "row", "images")
_IDS = {token: index for index, token in enumerate(TOKENS)}


@dataclass(frozen=True)
class Sheet:
    """Images and what is asked about them; each query comes with the name of its task."""

    context: str
    scenes: list[Scene]
    queries: list[tuple[str, Query]]


def distinct_sheet(rng: np.random.Generator, least: int = 3, most: int = 5) -> Sheet:
    """Ask for attributes, relations and existence in one image of so many things."""
    scene = distinct_scene(rng, least, most)
    queries = [
        *_label("attribute", scenes.attribute_queries(scene, rng)[:4]),
        *_label("relation", scenes.relation_queries(scene, rng)[:8]),
        *_label("exists", scenes.existence_queries(scene, rng)[:4]),
    ]
    return Sheet(IMAGE_WORD, [scene], queries)


def count_sheet(rng: np.random.Generator) -> Sheet:
    """Ask for several counts in one image."""
    scene, target = scenes.counted_scene(rng)
    return Sheet(IMAGE_WORD, [scene], _label("count", scenes.count_queries(scene, target, rng)[:6]))


def row_sheet(rng: np.random.Generator) -> Sheet:
    """Have both rows of digits read."""
    scene = two_rows(rng)
    return Sheet(IMAGE_WORD, [scene], _label("row", scenes.row_queries(scene, rng)))


def images_sheet(rng: np.random.Generator) -> Sheet:
    """Ask for attributes in two images."""
    task = scenes.Images()
    pictures, queries = task.draw(rng)
    return Sheet(task.context, pictures, _label("images", queries[:8]))


SHEETS: dict[str, Callable[..., Sheet]] = {
    "distinct": distinct_sheet,
    "count": count_sheet,
    "row": row_sheet,
    "images": images_sheet,
}


def _label(task: str, queries: list[Query]) -> list[tuple[str, Query]]:
    return [(task, query) for query in queries]


def encode(text: str) -> list[int]:
    """Look words up, as the tokenizer does, with every `<image>` as many times as it has tokens."""
    ids = []
    for word in text.split():
        ids += [_IDS[word]] * (IMAGE_TOKENS if word == IMAGE_WORD else 1)
    return ids


def pixel_values(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Return pictures as the tower reads them, [N, 3, H, W]."""
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return ((pixels / 255 - IMAGE_MEAN) / IMAGE_STD).contiguous()


def batch(sheets: Sequence[Sheet]) -> dict[str, Tensor]:
    """Collect sheets of equally many images.

    Returns:
        input_ids, position_ids, segments (0 images, 1.. questions, -1 padding) and labels (of the
        token that follows, only in answers), tasks (of the question, an index into `TASKS`), all
        [B, T]; pixel_values [N, 3, H, W].
    """
    rows = [_row(sheet) for sheet in sheets]
    longest = max(len(row[0]) for row in rows)
    fills = (PAD_ID, 0, -1, IGNORED, -1)
    columns = [
        torch.tensor([part + [fill] * (longest - len(part)) for part in parts])
        for parts, fill in zip(zip(*rows, strict=True), fills, strict=True)
    ]
    names = ("input_ids", "position_ids", "segments", "labels", "tasks")
    images = [scene.draw() for sheet in sheets for scene in sheet.scenes]
    return dict(zip(names, columns, strict=True)) | {"pixel_values": pixel_values(images)}


def _row(sheet: Sheet) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
    ids = encode(f"{BOS} {sheet.context}")
    first = len(ids)
    positions, segments = list(range(first)), [0] * first
    labels, tasks = [IGNORED] * first, [-1] * first
    for number, (task, query) in enumerate(sheet.queries, start=1):
        question, answer = encode(query.question), [*encode(query.answer), EOS_ID]
        read = question + answer[:-1]
        ids += read
        positions += range(first, first + len(read))
        segments += [number] * len(read)
        labels += [IGNORED] * (len(question) - 1) + answer
        tasks += [TASKS.index(task)] * len(read)
    return ids, positions, segments, labels, tasks


def mask(segments: Tensor) -> Tensor:
    """Return what is added to scores so that a token reads the images and its own question.

    Returns:
        [B, 1, T, T], 0 where row reads column, minus infinity elsewhere.
    """
    same = segments[:, :, None] == segments[:, None, :]
    images = segments[:, None, :] == 0
    reads = (same | images).tril()[:, None]
    return torch.zeros(reads.shape).masked_fill(~reads, float("-inf"))
