"""Encoders of the transformers library: one call from token ids to hidden states, no cache.

The stage is `forward(input_ids, attention_mask[, token_type_ids])`; its results have the names of
the library's output object. The mask [B, T] is an input like any other: 1 at tokens, 0 at padding.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from effc.diagnostics import ModelError, json_place
from effc.frontend import capture
from effc.frontend.huggingface import interfaces
from effc.frontend.huggingface.model import empty_model, refuse_growing_angles
from effc.ir.program import InputSpec, ModelInfo, Program
from effc.ir.weights import Weight

# Files that say how a sentence-transformers model makes one vector of the hidden states.
SENTENCE_FILES = (
    "modules.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
)

# Inputs of models that see or hear: text alone would be a part of such a model.
_OTHER_INPUTS = ("pixel_values", "input_features", "input_values", "image", "audio", "bbox")


def encoder_class(config: Any, folder: Path) -> Any | None:
    """The class of a folder that holds an encoder, None if it holds a decoder.

    `config.architectures` decides. A sentence-transformers folder is read as that library reads
    it: the base model, whatever head the checkpoint was saved with.

    Raises:
        ModelError: E0302 for an encoder with a decoder, and for models of more than text.
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_MAPPING

    base = MODEL_MAPPING.get(type(config), None)
    base = base[0] if isinstance(base, tuple) else base
    cls = next(filter(None, map(named_class, config.architectures or ())), None)
    if (folder / "modules.json").is_file() and base and not _has_decoder_beside(base):
        cls = base
    if cls is None and type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        cls = base
    if cls is None:
        return None
    if _has_decoder_beside(cls):
        raise ModelError(
            "E0302",
            f"{cls.__name__} is an encoder with a decoder, which cannot be compiled together",
            where=str(folder),
            help="effc takes encoders and decoder-only language models",
        )
    if cls.can_generate():
        return None
    if getattr(config, "is_decoder", False):
        raise ModelError(
            "E0302",
            f"{cls.__name__} is configured as a decoder (is_decoder) and cannot generate",
            where=str(folder),
            help="set is_decoder to false for an encoder, or save the model with its "
            "language-model head",
        )
    parameters = _parameters(cls)
    others = [name for name in parameters if name.startswith(_OTHER_INPUTS)]
    if others or "input_ids" not in parameters:
        found = (others or parameters or ["nothing"])[0]
        raise ModelError(
            "E0302",
            f"{cls.__name__} takes {found}; effc reads encoders of text alone from folders",
            where=str(folder),
            help="load it and give effc.optimize the module with example_inputs",
        )
    return cls


def named_class(name: str) -> Any | None:
    """The library's model class of that name, if there is one."""
    import transformers

    found = getattr(transformers, name, None) if name.isidentifier() else None
    is_model = isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)
    return found if is_model else None


def _parameters(cls: Any) -> list[str]:
    return list(inspect.signature(cls.forward).parameters)[1:]


def _has_decoder_beside(cls: Any) -> bool:
    return "decoder_input_ids" in _parameters(cls)


class _Encoder(torch.nn.Module):
    """The library's model as a function of tensors, returning a dict of tensors."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        cached = "use_cache" in inspect.signature(model.forward).parameters
        self.options = {"use_cache": False} if cached else {}

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        given = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        out = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            return_dict=True,
            **given,
            **self.options,
        )
        for name, value in out.items():
            if not isinstance(value, torch.Tensor):
                raise ModelError(
                    "E0302",
                    f"{type(self.model).__name__} returns {name!r}, which is no tensor",
                )
        return dict(out)


def load_encoder(
    cls: Any, config: Any, tensors: Mapping[str, Weight], dtype: torch.dtype, folder: Path
) -> tuple[Any, Program]:
    """An encoder without weights, and its program.

    Attention becomes one operator where the class goes through the library's interfaces for it;
    elsewhere it is captured as it is written, with a note. A pooler that the checkpoint lacks is
    left out: it would be random.

    Raises:
        ModelError: E0302, E0306 or E0308, when the model is no function of tensors.
    """
    options, notes = {}, _left_to_the_caller(folder)
    if _lacks_pooler(cls, tensors):
        options["add_pooling_layer"] = False
        notes.append("the checkpoint has no pooler, so there is no pooler_output")
    try:
        model = empty_model(cls, config, dtype, folder, interfaces.ENCODER, **options)
        program = _capture(model, str(folder))
    except ModelError as error:
        if error.code not in ("E0302", "E0308"):
            raise
        model = empty_model(cls, config, dtype, folder, "eager", **options)
        program = _capture(model, str(folder))
        notes.append(f"attention is compiled operator by operator: {error.message}")
    program.notes += notes
    return model, program


def _left_to_the_caller(folder: Path) -> list[str]:
    """What a sentence-transformers folder does after the encoder, as a note."""
    path = folder / "modules.json"
    if not path.is_file():
        return []
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
        kinds = [str(modules[i]["type"]).rpartition(".")[2] for i in range(len(modules))]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelError(
            "E0301",
            "modules.json is no list of modules with their types",
            where=json_place(error, str(path)),
            help="download it again, or remove it to compile the encoder alone",
        ) from error
    steps = ", ".join(kinds[1:])
    return [f"left to the caller, as modules.json says: {steps}"] if steps else []


def _lacks_pooler(cls: Any, tensors: Mapping[str, Weight]) -> bool:
    optional = "add_pooling_layer" in inspect.signature(cls.__init__).parameters
    return optional and not any("pooler." in name for name in tensors)


def _capture(model: Any, place: str) -> Program:
    """The stage "forward"; the batch is free, and the length up to the longest input."""
    refuse_growing_angles(model.config, place)
    example = {name: torch.ones(2, 7, dtype=torch.long) for name in _inputs(model)}
    context = _longest_input(model)
    batch, tokens = torch.export.Dim("B", min=1), torch.export.Dim("T", min=1, max=context)
    shapes = {name: {0: batch, 1: tokens} for name in example}
    exported = capture.export(_Encoder(model), example, shapes, place)
    inputs = tuple(InputSpec(name, torch.int64, ("B", "T")) for name in example)
    results = exported.call_spec.out_spec
    assert results is not None, "the wrapper returns a dict"
    outputs = tuple(results.context)
    captured = capture.to_stage(exported, "forward", inputs, outputs, prefix="model.", origin=place)
    info = ModelInfo(model.config.model_type, place, context=context)
    return Program({"forward": captured.stage}, captured.weights, info)


def _inputs(model: Any) -> list[str]:
    """Token types only where leaving them out means zeros: a table of their embeddings."""
    takes_types = "token_type_ids" in inspect.signature(model.forward).parameters
    has_table = any(name.endswith("token_type_embeddings") for name, _ in model.named_modules())
    types = ["token_type_ids"] if takes_types and has_table else []
    return ["input_ids", "attention_mask", *types]


def _longest_input(model: Any) -> int | None:
    """How many tokens an encoder takes: the rows of its position table, if it has one."""
    for name, part in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(part, torch.nn.Embedding):
            # A table with a row for padding counts from the row behind it.
            return part.num_embeddings - (0 if part.padding_idx is None else part.padding_idx + 1)
    stated = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return stated if isinstance(stated, int) and stated > 1 else None
