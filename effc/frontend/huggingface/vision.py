"""Vision-language models of the LLaVA kind as three stages over one state.

    encode(pixel_values [N, 3, height, width]) -> features [N, M, W]
    embed(ids [B, T], features [F, W]) -> embeds [B, T, W]
    forward(embeds [B, T, W], positions [B, T]) -> logits [B, T, V]

Such a model is a tower for images of one size, a projector, and a decoder that reads the features
in the places of image tokens as if they were words. Whether a class of the library is made like
that is not a matter of its name: see `effc.frontend.huggingface.construction`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from effc.diagnostics import ModelError
from effc.frontend import capture
from effc.frontend.huggingface import construction
from effc.frontend.huggingface.encoder import named_class
from effc.frontend.huggingface.model import refuse_uncacheable
from effc.ir.program import EMBED, ENCODE, InputSpec, ModelInfo, Program

IMAGE_FILES = ("preprocessor_config.json", "processor_config.json")
"""Files that say how an image becomes `pixel_values`."""


def vision_class(config: Any, folder: Path) -> Any | None:
    """The class of a folder that holds a vision-language model, None if it holds another.

    Raises:
        ModelError: E0302 for one that is not of the LLaVA kind.
    """
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    cls: Any = next(filter(None, map(named_class, config.architectures or ())), None)
    cls = cls or MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING.get(type(config), None)
    if cls is None or not sees(cls):
        return None
    construction.require_signature(cls, cls.__name__, str(folder))
    return cls


def sees(cls: Any) -> bool:
    """Whether a class of the library reads images beside text, and writes text."""
    parameters = inspect.signature(cls.forward).parameters
    return cls.can_generate() and {"input_ids", "pixel_values"} <= parameters.keys()


def capture_stages(model: Any, place: str) -> Program:
    """The three stages of a model; its parameters are not read.

    Raises:
        ModelError: E0302 for what is not of the LLaVA kind, or cannot be continued with a cache;
            E0306 and E0308 where its decoder cannot be captured.
    """
    construction.require_parts(model, place)
    refuse_uncacheable(model, place)
    token = construction.image_token(model, place)
    encode, tokens, listed = _encode(model, place)
    construction.require_plain_reading(model, token, tokens, listed, place)
    embed = _embed(model, token, place, encode)
    forward = _forward(model, place, embed)
    stages = {captured.stage.name: captured.stage for captured in (encode, embed, forward)}
    info = ModelInfo(model.config.model_type, place, image_token=token, image_tokens=tokens)
    return Program(stages, forward.weights, info)


class _Unlisted(TorchFunctionMode):
    """Keeps features whole that the library takes apart into a list of images, as its last step.

    A graph has no list as long as there are images: here it holds one element, all features.

    Attributes:
        listed: what was to be taken apart, None before.
        read: whether the library computed anything after that.
    """

    def __init__(self) -> None:
        super().__init__()
        self.listed: Tensor | None = None
        self.read = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func in (Tensor.unbind, Tensor.__len__) and _is_any_number(args, kwargs):
            self.read |= self.listed is not None and self.listed is not args[0]
            self.listed = args[0]
            return 1 if func is Tensor.__len__ else args[:1]
        self.read |= self.listed is not None
        return func(*args, **(kwargs or {}))

    def whole(self, features: Any) -> Any:
        """The features of all images, from what the library handed out; None if it read on."""
        if self.listed is None:
            return features
        last = isinstance(features, list | tuple) and len(features) == 1
        return self.listed if last and not self.read and features[0] is self.listed else None


def _is_any_number(args: Any, kwargs: Any) -> bool:
    """Whether a call takes apart the first dimension of a tensor that has any number of rows."""
    along = (kwargs or {}).get("dim", args[1] if len(args) > 1 else 0)
    return along == 0 and args[0].dim() > 0 and isinstance(args[0].shape[0], torch.SymInt)


class _Encode(torch.nn.Module):
    """The library's tower and projector as a function of pixels.

    Args:
        model: from the library.
        note: is told whether the library hands out a list of images; torch.export undoes what a
            module notes on itself.
    """

    def __init__(self, model: Any, note: Callable[[bool], None]) -> None:
        super().__init__()
        self.model = model
        self.note = note

    def forward(self, pixel_values: Tensor) -> Tensor:
        with _Unlisted() as mode:
            found = self.model.model.get_image_features(pixel_values, return_dict=True)
        features = found.pooler_output
        self.note(isinstance(features, list | tuple))
        whole = mode.whole(features)
        if not isinstance(whole, Tensor):
            raise construction.refusal(
                f"{type(self.model).__name__} takes its images one by one on the way to features",
                type(self.model).__name__,
            )
        return whole


def _encode(model: Any, place: str) -> tuple[capture.Captured, int, bool]:
    """The stage "encode", M, and whether the library hands out a list of images."""
    height, width = construction.image_size(model, place)
    channels = getattr(model.config.vision_config, "num_channels", 3)
    pixels = torch.zeros(2, channels, height, width, dtype=model.dtype)
    listed: list[bool] = []
    tower = f"the vision tower of {type(model).__name__}"
    try:
        shapes = {"pixel_values": {0: torch.export.Dim("N", min=1)}}
        exported = capture.export(
            _Encode(model, listed.append), {"pixel_values": pixels}, shapes, place
        )
    except ModelError as error:
        if error.code == "E0302":
            raise
        raise construction.refusal(
            f"{tower} is no function of images of {height} x {width} pixels: {error.message}", place
        ) from error
    spec = InputSpec("pixel_values", model.dtype, ("N", channels, height, width))
    found = capture.to_stage(
        exported, ENCODE, (spec,), ("features",), prefix="model.", origin=place
    )
    images = found.stage.placeholder("pixel_values").meta["val"].shape[0]
    shape = found.stage.results()["features"].meta["val"].shape  # type: ignore[union-attr]
    if len(shape) != 3 or str(shape[0]) != str(images) or isinstance(shape[1], torch.SymInt):
        raise construction.refusal(
            f"{tower} gives features of shape {list(map(str, shape))} for {images} images, "
            "not as many for each",
            place,
        )
    return found, int(shape[1]), listed[-1]


class _Embed(torch.nn.Module):
    """Rows of the table, and features in the places of image tokens.

    Image tokens take the rows of features in order. Those beyond the last one are words like any
    other: the library looks up an image token that the model itself has written.
    """

    def __init__(self, model: Any, image_token: int) -> None:
        super().__init__()
        self.model = model
        self.image_token = image_token

    def forward(self, ids: Tensor, features: Tensor) -> Tensor:
        embeds = self.model.get_input_embeddings()(ids)
        is_image = ids == self.image_token
        rank = is_image.flatten().cumsum(0).view(ids.shape)
        takes = is_image & (rank <= features.shape[0])
        return embeds.masked_scatter(takes.unsqueeze(-1), features)


def _embed(model: Any, token: int, place: str, beside: capture.Captured) -> capture.Captured:
    batch, tokens = torch.export.Dim("B", min=1), torch.export.Dim("T", min=1)
    width = construction.width(model)
    example = {
        "ids": torch.zeros(2, 7, dtype=torch.long),
        "features": torch.zeros(5, width, dtype=model.dtype),
    }
    shapes = {"ids": {0: batch, 1: tokens}, "features": {0: torch.export.Dim("F", min=1)}}
    exported = capture.export(_Embed(model, token), example, shapes, place)
    inputs = (
        InputSpec("ids", torch.int64, ("B", "T")),
        InputSpec("features", model.dtype, ("F", width)),
    )
    return capture.to_stage(
        exported, EMBED, inputs, ("embeds",), prefix="model.", origin=place, beside=beside
    )


class _Decoder(torch.nn.Module):
    """The library's decoder and head as a function of embeddings and positions."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, embeds: Tensor, positions: Tensor) -> Tensor:
        out = self.model(
            inputs_embeds=embeds,
            position_ids=positions,
            attention_mask=torch.ones_like(positions),
            use_cache=False,
        )
        return out.logits


def _forward(model: Any, place: str, beside: capture.Captured) -> capture.Captured:
    batch, tokens = torch.export.Dim("B", min=1), torch.export.Dim("T", min=1)
    width = construction.width(model)
    example = {
        "embeds": torch.zeros(2, 7, width, dtype=model.dtype),
        "positions": torch.arange(7).expand(2, 7).contiguous(),
    }
    shapes = {name: {0: batch, 1: tokens} for name in example}
    exported = capture.export(_Decoder(model), example, shapes, place)
    inputs = (
        InputSpec("embeds", model.dtype, ("B", "T", width)),
        InputSpec("positions", torch.int64, ("B", "T")),
    )
    return capture.to_stage(
        exported, "forward", inputs, ("logits",), prefix="model.", origin=place, beside=beside
    )
