"""The tower's warm-up: say of every patch what it shows and where it is.

Trained on questions from scratch, a tower of this size learns very slowly: the gradient of an
answer has to find the patch first. Labels of patches teach the same things within minutes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from transformers import CLIPVisionConfig, CLIPVisionModel

from effc.evaluate.tasks.base import stream
from effc.evaluate.tasks.layout import (
    PATCH,
    PATCHES,
    ROW_LENGTHS,
    SIDE,
    Scene,
    distinct_scene,
    two_rows,
)
from effc.evaluate.tasks.rendering import COLOURS, DIGITS, SHAPES, render_owners
from effc.evaluate.tasks.scenes import counted_scene
from examples.zoo.vlm.data import pixel_values

# What a patch may show of the thing it belongs to; class 0 of each is background.
COLOUR_CLASSES = ("", *COLOURS)
SHAPE_CLASSES = ("", *SHAPES, "row")
SIZE_CLASSES = ("", 2, 5, 10)
DIGIT_CLASSES = ("", *DIGITS)
TURNS = 1 + max(ROW_LENGTHS)  # of a bare digit in its row from the left, after everything else
OFFSETS = 10  # nine places around the centre of a thing, after background
CLASSES = (
    len(COLOUR_CLASSES),
    len(SHAPE_CLASSES),
    len(SIZE_CLASSES),
    len(DIGIT_CLASSES),
    OFFSETS,
    TURNS,
)
MIN_PIXELS = 4  # of a thing in a patch, for the patch to be the thing's
BATCH = 16


def patch_labels(scene: Scene) -> NDArray[np.int64]:
    """Return what each patch shows, [196, 6].

    These are colour, shape, size, digit, place in the thing, and which digit of its row it is.
    """
    owners = render_owners([thing.sprite() for thing in scene.things], SIDE, SIDE)
    tiles = owners.reshape(PATCHES, PATCH, PATCHES, PATCH).swapaxes(1, 2)
    tiles = tiles.reshape(PATCHES, PATCHES, PATCH * PATCH)
    # Things never share a patch, so that the largest index is the only one.
    owner = np.where((tiles >= 0).sum(-1) >= MIN_PIXELS, tiles.max(-1), -1)
    labels = np.zeros((PATCHES, PATCHES, len(CLASSES)), dtype=np.int64)
    for index, thing in enumerate(scene.things):
        rows, columns = np.nonzero(owner == index)
        bare = thing.shape in DIGITS
        labels[rows, columns, :4] = (
            COLOUR_CLASSES.index(thing.colour),
            SHAPE_CLASSES.index("row" if bare else thing.shape),
            SIZE_CLASSES.index(thing.radius),
            DIGIT_CLASSES.index(thing.shape if bare else thing.digit),
        )
        labels[rows, columns, 4] = 5 + 3 * (rows - thing.row) + (columns - thing.column)
        if bare:
            before = [
                one for one in scene.things if one.row == thing.row and one.column < thing.column
            ]
            labels[rows, columns, 5] = 1 + len(before)
    return labels.reshape(PATCHES * PATCHES, len(CLASSES))


def draw_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene of any of the kinds that are asked about."""
    kind = rng.integers(3)
    if kind == 0:
        return distinct_scene(rng)
    return two_rows(rng) if kind == 1 else counted_scene(rng)[0]


class PatchReader(nn.Module):
    """A tower with linear heads on its patches' last hidden states."""

    def __init__(self, settings: CLIPVisionConfig) -> None:
        super().__init__()
        self.tower = CLIPVisionModel(settings)
        self.tower.set_attn_implementation("eager")
        self.classes = nn.Linear(settings.hidden_size, sum(CLASSES))
        self.place = nn.Linear(settings.hidden_size, 2)

    def forward(self, pixels: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return logits [N, 196, classes] of every label and places [N, 196, 2] in -1 to 1."""
        states = self.tower(pixel_values=pixels, output_hidden_states=True).hidden_states[-1][:, 1:]
        return list(self.classes(states).split(CLASSES, dim=-1)), self.place(states)


class WarmupTask:
    """Classify patches and read their row and column off linearly."""

    def __init__(self, settings: CLIPVisionConfig, seed: int) -> None:
        torch.manual_seed(seed)
        self.model = PatchReader(settings)
        self.seed = seed
        steps = torch.linspace(-1, 1, PATCHES)
        self.places = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1).flatten(0, 1)

    def batches(self, step: int, progress: float) -> list[dict[str, Tensor]]:
        """Draw a step's scenes with their labels."""
        scenes = [draw_scene(stream(self.seed, step * BATCH + index)) for index in range(BATCH)]
        return [scene_batch(scenes)]

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the sum of the labels' cross-entropies and of the places' squared error."""
        logits, places = self.model(batch["pixel_values"])
        labels = batch["labels"].unbind(-1)
        loss = mse_loss(places.float(), self.places.to(places.device).expand_as(places))
        for scores, label in zip(logits, labels, strict=True):
            loss = loss + cross_entropy(scores.float().flatten(0, 1), label.flatten())
        return loss


def scene_batch(scenes: Sequence[Scene]) -> dict[str, Tensor]:
    """Collect pixels [N, 3, 98, 98] and patch labels [N, 196, 6]."""
    labels = np.stack([patch_labels(scene) for scene in scenes])
    pixels = pixel_values([scene.draw() for scene in scenes])
    return {"pixel_values": pixels, "labels": torch.from_numpy(labels)}


@torch.no_grad()
def patch_accuracy(model: PatchReader, scenes: Sequence[Scene]) -> list[float]:
    """Return the share of patches of things, not of background, that each head reads right."""
    batch = scene_batch(scenes)
    logits, _ = model(batch["pixel_values"])
    shown = batch["labels"][..., 0] > 0
    return [
        (scores.argmax(-1) == label)[shown].float().mean().item()
        for scores, label in zip(logits, batch["labels"].unbind(-1), strict=True)
    ]
