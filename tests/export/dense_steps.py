"""Generating with an exported decode stage, as a caller without effc would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from effc.export import dense
from effc.ir.program import Program


class Decoding:
    """Sequences that advance together over a dense cache.

    Args:
        call: the exported stage: its arguments by name -> logits, lengths, planes.
        program: what was exported.
        batch: B.
        capacity: S.
    """

    def __init__(
        self, call: Callable[..., Any], program: Program, batch: int, capacity: int = 40
    ) -> None:
        self.call = call
        self.past = dense.empty_past(program, batch, capacity)
        self.lengths = torch.zeros(batch, dtype=torch.int64)

    def feed(self, rows: list[list[int]]) -> Tensor:
        """Feed the next tokens of each sequence, padded at the right; the logits after the last
        of each `[B, V]`."""
        new_len = torch.tensor([len(row) for row in rows])
        width = max(map(len, rows))
        logits, self.lengths, self.past = self.call(
            input_ids=torch.tensor([[*row, *[0] * (width - len(row))] for row in rows]),
            positions=self.lengths[:, None] + torch.arange(width),
            new_len=new_len,
            logit_rows=new_len[:, None] - 1,
            lengths=self.lengths,
            past=self.past,
        )
        return logits[:, 0]


def greedy(call: Callable[..., Any], program: Program, ids: Tensor, new: int) -> Tensor:
    """The most likely continuation of prompts `[B, T]`: `[B, T + new]`."""
    decoding = Decoding(call, program, ids.shape[0], ids.shape[1] + new)
    rows, result = ids.tolist(), ids
    for _ in range(new):
        best = decoding.feed(rows).argmax(-1, keepdim=True)
        rows, result = best.tolist(), torch.cat([result, best], 1)
    return result
