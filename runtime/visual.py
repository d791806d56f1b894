"""Features of images on their way to the tokens whose places they take.

    encode(pixel_values [N, 3, height, width]) -> features [N, M, W]
    embed(ids [B, T], features [F, W]) -> embeds [B, T, W]

Images are encoded once per call. Prompts are fed in pieces and sequences join at different steps,
so each sequence keeps the feature rows that its image tokens have yet to take.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from effc.diagnostics import GenerationError, InternalError
from effc.ir.program import EMBED, ENCODE, Program
from effc.runtime.arguments import bad_argument

Run = Callable[[str, Mapping[str, Any]], dict[str, Tensor]]
"""Runs a stage: its name and inputs -> results."""


def sees(program: Program) -> bool:
    """Whether prompts of a program may hold images."""
    return ENCODE in program.stages


def image_features(
    run: Run, program: Program, prompts: Sequence[Sequence[int]], pixel_values: Tensor | None
) -> list[Tensor | None]:
    """For each prompt the rows [F_b, W] that its image tokens take, None where it has none.

    Args:
        run: runs the stage "encode", once.
        program: what it runs.
        prompts: [B] lists of token ids; images go to their image tokens in order.
        pixel_values: [N, 3, height, width], or None.

    Raises:
        GenerationError: E0703, the model does not see, a tensor of the wrong type or shape, or
            not as many image tokens as the images make features.
    """
    if not sees(program):
        if pixel_values is not None:
            raise bad_argument("pixel_values", "given", "left out: this model reads text alone")
        return [None] * len(prompts)
    counts = [_count(prompt, program.info.image_token) for prompt in prompts]
    _check_images(program, pixel_values, sum(counts))
    if pixel_values is None:
        return [None] * len(prompts)
    dtype = program.stages[ENCODE].inputs[0].dtype
    pixels = pixel_values.to(device=program.device, dtype=dtype)
    features = run(ENCODE, {"pixel_values": pixels})["features"].flatten(0, 1)
    return list(features.split(counts))


def _check_images(program: Program, pixel_values: object, found: int) -> None:
    """Refuse images of another shape than the tower's, and prompts with other places for them."""
    info, spec = program.info, program.stages[ENCODE].inputs[0]
    images = 0
    if pixel_values is not None:
        sizes = spec.shape[1:]
        allowed = f"a floating-point tensor [N, {', '.join(map(str, sizes))}]"
        if not isinstance(pixel_values, Tensor):
            raise bad_argument("pixel_values", type(pixel_values).__name__, allowed)
        if not pixel_values.is_floating_point() or tuple(pixel_values.shape[1:]) != sizes:
            text = f"{list(pixel_values.shape)} of {pixel_values.dtype}"
            raise bad_argument(
                "pixel_values",
                text,
                allowed,
                "effc.runtime.images.prepare_images makes it of images of any size",
            )
        images = len(pixel_values)
    expected = images * (info.image_tokens or 0)
    if found != expected:
        each = f"{info.image_tokens} for each of {images}" if images else "there are no images"
        raise GenerationError(
            "E0703",
            f"image tokens (id {info.image_token}) in the prompts: found {found}, expected "
            f"{expected} ({each})",
            where="input_ids",
            help="pass pixel_values (effc run: --image) of all images, and repeat the image token "
            "of each as often as it has features (effc.runtime.images.expand_image_tokens)",
        )


def _count(tokens: Sequence[int], token: int | None) -> int:
    return sum(each == token for each in tokens)


class Embedding:
    """Turns the tokens of a batch in flight into what its decoder reads.

    Args:
        program: with a stage "embed".
        features: per sequence the rows [F_b, W] for its image tokens, or None.
        device: where the stage runs.
    """

    def __init__(
        self, program: Program, features: Sequence[Tensor | None], device: torch.device
    ) -> None:
        spec = program.stages[EMBED].inputs[1]
        self._image_token = program.info.image_token
        self._nothing = torch.zeros(0, int(spec.shape[1]), dtype=spec.dtype, device=device)
        self._left = [self._nothing if rows is None else rows for rows in features]

    @property
    def filler(self) -> int:
        """A token for columns that mean nothing, which takes no feature."""
        return 1 if self._image_token == 0 else 0

    def embeds(self, run: Run, ids: Tensor, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Embeddings [B, T, W] of the next tokens of each sequence.

        Args:
            run: runs the stage "embed".
            ids: [B, T], the tokens filled up with `filler`.
            tokens: [B] lists.
        """
        return run(EMBED, {"ids": ids, "features": self._take(tokens)})["embeds"]

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Go on with these sequences only."""
        self._left = [self._left[row] for row in rows]

    def _take(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """The next rows [F, W] for the image tokens of a step.

        An image token that the model wrote itself finds no row left and stays a word. The stage
        hands out rows in order, so all after it must be words too.
        """
        taken: list[Tensor] = []
        words = False
        for row, new in enumerate(tokens):
            wanted = _count(new, self._image_token)
            rows, self._left[row] = self._left[row][:wanted], self._left[row][wanted:]
            if words and len(rows):
                message = f"features of sequence {row} come after image tokens without any"
                raise InternalError("E0901", message)
            words = words or len(rows) < wanted
            taken.append(rows)
        return torch.cat([self._nothing, *taken])
