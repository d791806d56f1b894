"""The tokenizer that came with a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from effc.diagnostics import ModelError, Span, json_place

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from effc.ir.program import ModelInfo


def open_tokenizer(info: ModelInfo) -> Tokenizer | None:
    """The tokenizer among the model's files, None when there is none.

    Raises:
        ModelError: E0309 if tokenizer.json is damaged.
    """
    path = info.files.get("tokenizer.json")
    if path is None:
        return None
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare exceptions
        raise _unreadable(path) from error


def _unreadable(path: Path) -> ModelError:
    """E0309, at the place where the file stops being JSON, if that is what is wrong."""
    where: Span | str = str(path)
    message = "the tokenizer is of a kind that the installed tokenizers library does not know"
    help = "update tokenizers, or pass token ids"
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        where, message = json_place(error, where), "the tokenizer is damaged: it is no valid JSON"
        help = "compile the model again from an intact checkpoint, or pass token ids"
    return ModelError("E0309", message, where=where, help=help)
