"""Counts of visible keys against the mask of the operator itself."""

from __future__ import annotations

import itertools

import pytest
import torch

from effc.cost.visibility import Mask, keys_read, pairs


def visible(mask: Mask, tokens: int, held: int) -> torch.Tensor:
    """[tokens, held + tokens], true where `effc::attention` sees a key, written out."""
    query = torch.arange(held, held + tokens)[:, None]
    key = torch.arange(held + tokens)[None, :]
    seen = torch.ones(tokens, held + tokens, dtype=torch.bool)
    if mask.causal:
        seen &= key <= query
    if mask.window is not None:
        seen &= query - key < mask.window
    if mask.chunk is not None:
        seen &= key // mask.chunk == query // mask.chunk
    return seen


MASKS = [
    Mask(causal, window, chunk)
    for causal, window, chunk in itertools.product((True, False), (None, 1, 5, 100), (None, 4, 100))
]


@pytest.mark.parametrize("mask", MASKS, ids=str)
def test_pairs_and_keys(mask: Mask) -> None:
    for tokens, held in ((1, 0), (1, 7), (9, 0), (6, 13)):
        seen = visible(mask, tokens, held)
        assert pairs(mask, tokens, held) == int(seen.sum())
        assert keys_read(mask, tokens, held) == int(seen.any(0).sum())
