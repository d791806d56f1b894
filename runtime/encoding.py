"""Inputs of an encoder as callers pass them: checked, and what may be left out filled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from effc.diagnostics import GenerationError
from effc.ir.program import Program
from effc.runtime.arguments import bad_argument
from effc.runtime.prompts import check_ids

# What an input that is left out means: every token is real, and of the first kind.
_DEFAULTS = {"attention_mask": 1, "token_type_ids": 0}


def is_encoder(program: Program) -> bool:
    """Whether the program was captured from an encoder of the transformers library."""
    stage = program.stages.get("forward")
    names = [spec.name for spec in stage.inputs] if stage else []
    return program.info.family != "module" and names[:2] == ["input_ids", "attention_mask"]


def read_encoder_inputs(program: Program, values: Mapping[str, Any]) -> dict[str, Tensor]:
    """All inputs of the stage, int64 [B, T].

    Args:
        program: of an encoder.
        values: by name; `input_ids` is among them.

    Raises:
        GenerationError: E0701 rows longer than the context; E0702 a token outside the vocabulary;
            E0703 a tensor of the wrong type or shape.
    """
    ids = values["input_ids"]
    check_ids(ids)
    _check_range(ids, program)
    inputs = {"input_ids": ids.long()}
    for spec in program.stages["forward"].inputs[1:]:
        value = values.get(spec.name)
        if value is None:
            value = torch.full_like(ids, _DEFAULTS[spec.name])
        if not isinstance(value, Tensor) or value.shape != ids.shape:
            found = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise bad_argument(spec.name, found, f"of the shape of input_ids, {list(ids.shape)}")
        inputs[spec.name] = value.long()
    return inputs


def _check_range(ids: Tensor, program: Program) -> None:
    context, vocabulary = program.info.context, program.info.vocabulary
    if context is not None and ids.shape[1] > context:
        raise GenerationError(
            "E0701",
            f"the input has {ids.shape[1]} tokens and the context of the model {context}",
            where="input_ids",
            help=f"cut the text to {context} tokens, special tokens included",
        )
    if vocabulary is not None and not 0 <= int(ids.min()) <= int(ids.max()) < vocabulary:
        outside = int(ids.max()) if int(ids.max()) >= vocabulary else int(ids.min())
        raise GenerationError(
            "E0702",
            f"token id {outside} lies outside the vocabulary of 0..{vocabulary - 1}",
            where="input_ids",
            help="tokenize the text with the tokenizer of this model",
        )
