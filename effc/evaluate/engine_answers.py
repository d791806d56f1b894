"""A compiled model under evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from effc.evaluate.answering import Prompt
from effc.ir.program import ModelInfo
from effc.runtime.engine import Engine
from effc.runtime.images import image_config, prepare_images


class EngineModel:
    """A program that generates, behind `effc.evaluate.answering.LanguageModel`.

    Args:
        engine: of the program.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def info(self) -> ModelInfo:
        """Facts about the model."""
        return self._engine.program.info

    def continue_prompts(self, prompts: Sequence[Prompt], new_tokens: int) -> list[list[int]]:
        """See `LanguageModel.continue_prompts`."""
        ids, mask = left_padded([prompt.ids for prompt in prompts])
        images = [image for prompt in prompts for image in prompt.images]
        pixels = prepare_images(images, image_config(self.info)) if images else None
        result = self._engine.generate_result(
            ids, mask, pixel_values=pixels, max_new_tokens=new_tokens
        )
        return result.tokens

    def logits(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        """See `LanguageModel.logits`."""
        return list(self._engine.forward(torch.tensor(list(map(list, rows)))))


def left_padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids and mask [B, T] of rows of any lengths, zeros at the left of short ones."""
    T = max(map(len, rows))
    ids = torch.tensor([[*[0] * (T - len(row)), *row] for row in rows])
    mask = torch.tensor([[0] * (T - len(row)) + [1] * len(row) for row in rows])
    return ids, mask
