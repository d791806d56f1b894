"""What a checkpoint folder says about its model beside the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from effc.frontend.base import CARRIED_FILES
from effc.frontend.huggingface.configuration import read_json
from effc.frontend.huggingface.encoder import SENTENCE_FILES
from effc.frontend.huggingface.vision import IMAGE_FILES
from effc.ir.program import ModelInfo

_CARRIED = (*CARRIED_FILES, *SENTENCE_FILES, *IMAGE_FILES)


def model_info(config: Any, folder: Path | None, dtype: torch.dtype, family: str) -> ModelInfo:
    """Facts about a model.

    Args:
        config: of the library.
        folder: of the checkpoint; None for a model in memory.
        dtype: of its parameters.
        family: the name of its class, where the configuration has no model type.
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    generation = _generation_config(folder)
    eos = generation.get("eos_token_id", getattr(text, "eos_token_id", None))
    context = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)
    return ModelInfo(
        family=getattr(config, "model_type", family),
        source=str(folder) if folder else family,
        context=context,
        vocabulary=getattr(text, "vocab_size", None),
        dtype=dtype,
        eos=tuple(eos) if isinstance(eos, list) else () if eos is None else (int(eos),),
        bos=generation.get("bos_token_id", getattr(text, "bos_token_id", None)),
        pad=generation.get("pad_token_id", getattr(text, "pad_token_id", None)),
        files={n: folder / n for n in _CARRIED if (folder / n).is_file()} if folder else {},
    )


def _generation_config(folder: Path | None) -> dict[str, Any]:
    path = folder / "generation_config.json" if folder else None
    if path is None or not path.is_file():
        return {}
    return {k: v for k, v in read_json(path).items() if v is not None}
