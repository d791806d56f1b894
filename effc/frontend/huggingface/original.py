"""The original model under evaluation: the library's own code, its own cache, nothing compiled.

What effc makes of a model is compared with this. Damage is done here too (`ablated.py`): hooks on
the library's cache are simple, and tell whether a task notices at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effc.diagnostics import ModelError
from effc.evaluate.ablation import Ablation
from effc.evaluate.answering import Prompt
from effc.evaluate.engine_answers import left_padded
from effc.frontend.huggingface import checkpoint, construction, vision
from effc.frontend.huggingface.ablated import continue_ablated
from effc.frontend.huggingface.configuration import read_config
from effc.frontend.huggingface.model import decoder_class
from effc.frontend.huggingface.model_info import model_info
from effc.frontend.huggingface.quiet import quiet
from effc.ir.program import ModelInfo
from effc.runtime.images import image_config, prepare_images


class OriginalModel:
    """A model of transformers, behind `effc.evaluate.answering.LanguageModel`.

    Args:
        model: a language model of transformers in evaluation mode, with or without eyes.
        info: facts about it, see `facts`.
        ablation: damage to do while it answers, None for none.
    """

    def __init__(self, model: Any, info: ModelInfo, ablation: Ablation | None = None) -> None:
        self._model = model
        self._info = info
        self._ablation = ablation

    @staticmethod
    def open(folder: Path, ablation: Ablation | None = None) -> OriginalModel:
        """The model in a checkpoint folder.

        It computes in the checkpoint's element type, but for float16 in float32, which holds the
        same weights: CPUs are slow at float16, and its rounding is no property of the model.

        Raises:
            ModelError: E0301 to E0305, see `effc.frontend.huggingface.frontend`.
        """
        model = load_original(folder)
        return OriginalModel(model, facts(model, folder), ablation)

    @property
    def info(self) -> ModelInfo:
        """Facts about the model."""
        return self._info

    @torch.inference_mode()
    def continue_prompts(self, prompts: Sequence[Prompt], new_tokens: int) -> list[list[int]]:
        """See `LanguageModel.continue_prompts`."""
        if self._ablation is not None:
            return continue_ablated(
                self._model, self._info, prompts, new_tokens, self._ablation, self._pixels
            )
        ids, mask = left_padded([prompt.ids for prompt in prompts])
        seen = self._pixels([image for prompt in prompts for image in prompt.images])
        with quiet(), _greedy(self._model, self._info, new_tokens):
            out = self._model.generate(input_ids=ids, attention_mask=mask, **seen)
        return [self._ended(row) for row in out[:, ids.shape[1] :].tolist()]

    @torch.inference_mode()
    def logits(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        """See `LanguageModel.logits`."""
        ids = torch.tensor([list(row) for row in rows])
        return list(self._model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits)

    def _ended(self, tokens: list[int]) -> list[int]:
        """The tokens up to the first eos; the library fills up with others behind it."""
        ends = (n + 1 for n, token in enumerate(tokens) if token in self._info.eos)
        return tokens[: next(ends, len(tokens))]

    def _pixels(self, images: Sequence[Any]) -> dict[str, Tensor]:
        """The argument `pixel_values` of the library's model, nothing where there is no image."""
        if not images:
            return {}
        pixels = prepare_images(images, image_config(self._info))
        return {"pixel_values": pixels.to(self._model.dtype)}


def load_original(folder: Path) -> Any:
    """The library's model of a checkpoint folder, filled in and in evaluation mode.

    Raises:
        ModelError: E0301 to E0305.
    """
    config = read_config(folder)
    checkpoint.open_checkpoint(folder)  # refuses what is damaged, in words that name it
    cls = vision.vision_class(config, folder) or decoder_class(config, folder)
    with quiet(), _without_bars():
        model, found = cls.from_pretrained(
            str(folder), dtype="auto", local_files_only=True, output_loading_info=True
        )
    if missing := sorted(found["missing_keys"]):
        raise ModelError(
            "E0304",
            f"{len(missing)} tensors are missing from the checkpoint: {', '.join(missing[:4])}",
            where=str(folder),
            help="config.json and the weights must come from the same model",
        )
    return (model.float() if model.dtype == torch.float16 else model).eval()


@contextmanager
def _without_bars() -> Iterator[None]:
    """The library draws a bar while it loads; what is being done is for the command to say."""
    from transformers.utils import logging

    drawn = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if drawn:
            logging.enable_progress_bar()


def facts(model: Any, folder: Path) -> ModelInfo:
    """What evaluation must know about a model.

    Args:
        model: of transformers.
        folder: its own, or that of a model with the same tokenizer and the same images.

    Raises:
        ModelError: E0302, it sees in a way that effc does not know.
    """
    info = model_info(model.config, folder, model.dtype, type(model).__name__)
    if not vision.sees(type(model)):
        return info
    token = construction.image_token(model, str(folder))
    return replace(info, image_token=token, image_tokens=_visual_tokens(model, str(folder)))


@torch.inference_mode()
def _visual_tokens(model: Any, place: str) -> int:
    """M, how many tokens one image takes."""
    height, width = construction.image_size(model, place)
    channels = getattr(model.config.vision_config, "num_channels", 3)
    pixels = torch.zeros(1, channels, height, width, dtype=model.dtype)
    return len(model.get_image_features(pixels, return_dict=True).pooler_output[0])


@contextmanager
def _greedy(model: Any, info: ModelInfo, new_tokens: int) -> Iterator[None]:
    """The library's plain greedy search, whatever the checkpoint's generation_config asks for."""
    from transformers import GenerationConfig

    old = model.generation_config
    pad = info.eos[0] if info.pad is None else info.pad
    try:
        model.generation_config = GenerationConfig(
            do_sample=False,
            max_new_tokens=new_tokens,
            eos_token_id=list(info.eos),
            pad_token_id=pad,
        )
        yield
    finally:
        model.generation_config = old
