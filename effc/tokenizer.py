"""The tokenizer that came with a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from effc.diagnostics import ModelError

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
        raise ModelError(
            "E0309",
            f"the tokenizer cannot be read ({error})",
            where=str(path),
            help="compile the model again from an intact checkpoint, or pass token ids",
        ) from error
