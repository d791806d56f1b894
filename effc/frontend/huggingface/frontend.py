"""The `huggingface` frontend: checkpoint folder or transformers model -> program.

A decoder is one graph without a cache, and `positions` is always an input; for an encoder see
`effc.frontend.huggingface.encoder`, for a vision-language model `effc.frontend.huggingface.vision`.
The model classes are the library's own. Parameters are never filled in: the graph is captured over
untouched memory and weights stay in their files until something asks for them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from effc.diagnostics import ModelError
from effc.frontend import capture
from effc.frontend.base import evaluating
from effc.frontend.huggingface import checkpoint, encoder, interfaces, vision
from effc.frontend.huggingface.configuration import read_config
from effc.frontend.huggingface.model import (
    decoder_class,
    empty_model,
    is_causal_language_model,
    refuse_uncacheable,
)
from effc.frontend.huggingface.model_info import model_info
from effc.frontend.huggingface.quiet import quiet
from effc.ir.program import InputSpec, ModelInfo, Program
from effc.ir.weights import Weight, Weights


class HuggingFaceFrontend:
    """Local folders written by `save_pretrained`, and models of the transformers library."""

    name = "huggingface"

    def accepts(self, source: Any) -> bool:
        """A folder, or a decoder of a class from transformers."""
        if isinstance(source, str | Path):
            return Path(source).is_dir()
        ours = any(c.__module__.startswith("transformers.") for c in type(source).__mro__)
        return ours and source.can_generate() and not source.config.is_encoder_decoder

    def load(self, source: Any, *, dtype: torch.dtype | None = None, **_: Any) -> Program:
        """Capture a causal language model, with or without eyes, or an encoder.

        Args:
            source: the folder, or a transformers language model in evaluation mode.
            dtype: compute type; default: the checkpoint's.

        Raises:
            ModelError: see the codes E0301 to E0309.
        """
        if isinstance(source, str | Path):
            return load_folder(Path(source), dtype)
        return load_module(source, dtype)


def load_folder(folder: Path, dtype: torch.dtype | None) -> Program:
    """Program of a checkpoint folder; weights stay on disk."""
    config = read_config(folder)
    tensors = checkpoint.open_checkpoint(folder)
    dtype = dtype or _checkpoint_dtype(config, tensors)
    seeing = vision.vision_class(config, folder)
    reading = None if seeing else encoder.encoder_class(config, folder)
    with quiet():
        if reading is not None:
            model, program = encoder.load_encoder(reading, config, tensors, dtype, folder)
        else:
            cls = seeing or decoder_class(config, folder)
            model = empty_model(cls, config, dtype, folder, interfaces.NAME)
            program = _capture(model, str(folder))
        weights = checkpoint.match_to_model(model, tensors, dtype, str(folder))
    _fill(program.weights, model, weights)
    info = model_info(config, folder, dtype, type(model).__name__)
    program.info = _with_captured(info, program.info)
    return program


def load_module(model: Any, dtype: torch.dtype | None) -> Program:
    """Program of a transformers model in memory; its parameters are shared, not copied."""
    if dtype not in (None, model.dtype):
        raise ModelError(
            "E0304",
            f"target.dtype is {dtype}, the model's parameters are {model.dtype}",
            where=type(model).__name__,
            help="convert the model with .to(dtype) before compiling it",
        )
    old = model.config._attn_implementation
    experts = getattr(model.config, "_experts_implementation", None)
    interfaces.register()
    try:
        model.set_attn_implementation(interfaces.NAME)
        model.config._experts_implementation = interfaces.NAME
        with quiet(), evaluating(model):
            program = _capture(model, type(model).__name__)
    finally:
        model.set_attn_implementation(old)
        model.config._experts_implementation = experts
    info = model_info(model.config, None, model.dtype, type(model).__name__)
    program.info = _with_captured(info, program.info)
    return program


def _with_captured(info: ModelInfo, captured: ModelInfo) -> ModelInfo:
    """What the configuration says, and what only the capture could tell."""
    return replace(
        info,
        context=captured.context or info.context,
        image_token=captured.image_token,
        image_tokens=captured.image_tokens,
    )


def _checkpoint_dtype(config: Any, tensors: dict[str, Weight]) -> torch.dtype:
    declared = getattr(config, "dtype", None)
    if isinstance(declared, str):
        declared = getattr(torch, declared.removeprefix("torch."), None)
    floats = [w.dtype for w in tensors.values() if w.dtype.is_floating_point]
    return declared or (max(set(floats), key=floats.count) if floats else torch.float32)


class _Decoder(torch.nn.Module):
    """The library's model as a function of ids and positions."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        # An explicit all-ones mask switches off the library's search for packed sequences.
        out = self.model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=torch.ones_like(ids),
            use_cache=False,
        )
        return out.logits


def _capture(model: Any, place: str) -> Program:
    if not vision.sees(type(model)):
        return _capture_words(model, place)
    try:
        return vision.capture_stages(model, place)
    except ModelError as refused:
        if refused.code != "E0302" or not is_causal_language_model(model.config):
            raise
        program = _capture_words(model, place)
        program.notes.append(f"compiled for text alone: {refused.message}")
        return program


def _capture_words(model: Any, place: str) -> Program:
    batch, tokens = torch.export.Dim("B", min=1), torch.export.Dim("T", min=1)
    example = {
        "ids": torch.zeros(2, 7, dtype=torch.long),
        "positions": torch.arange(7).expand(2, 7).contiguous(),
    }
    refuse_uncacheable(model, place)
    shapes = {name: {0: batch, 1: tokens} for name in example}
    exported = capture.export(_Decoder(model), example, shapes, place)
    inputs = tuple(InputSpec(name, torch.int64, ("B", "T")) for name in example)
    captured = capture.to_stage(
        exported, "forward", inputs, ("logits",), prefix="model.", origin=place
    )
    info = ModelInfo(model.config.model_type, place)
    return Program({"forward": captured.stage}, captured.weights, info)


def _fill(weights: Weights, model: Any, loaded: dict[str, Weight]) -> None:
    """Put the checkpoint's weights where the capture saw the module's empty parameters."""
    groups = {canonical: {canonical} for canonical in weights}
    for name, canonical in weights.ties.items():
        groups[canonical].add(name)
    parameters = {n for n, _ in model.named_parameters(remove_duplicate=False)}
    for canonical, names in groups.items():
        source = next((loaded[n] for n in sorted(names) if n in loaded), None)
        if source is not None:
            weights.set(canonical, source)
        elif names & parameters:
            raise ModelError("E0304", f"weight {canonical!r} is not in the checkpoint")
