"""A batch in flight: an executable, and the state it runs over.

`step` feeds new tokens and returns logits; `commit` says how many of them count. Decoding commits
the one token it fed, verification feeds a draft and commits what was accepted: the same two calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from effc.ir.program import EMBED, Program
from effc.runtime.kv_store import PagedStore
from effc.runtime.schedule import evictions
from effc.runtime.visual import Embedding

STAGE = "decode"
PREFILL_CHUNK = 512


class Runnable(Protocol):
    """What the engine runs, e.g. `effc.runtime.executable.Executable`."""

    @property
    def program(self) -> Program:
        """The program behind it."""
        ...

    def __call__(
        self, stage: str, inputs: Mapping[str, Tensor | list[Tensor] | None]
    ) -> dict[str, Tensor]:
        """Run one stage: inputs by name -> results by name."""
        ...


class Session:
    """Sequences that advance together.

    Args:
        executable: what to run.
        batch: B, sequences at the start.
        capacity: the most tokens a sequence may come to hold.
        device: where the state lives.
        features: for a model that sees, the rows [F_b, W] that the image tokens of each sequence
            take, in order; None where it has none.
    """

    def __init__(
        self,
        executable: Runnable,
        batch: int,
        capacity: int,
        device: torch.device | str,
        features: Sequence[Tensor | None] | None = None,
    ) -> None:
        self._executable = executable
        self._device = torch.device(device)
        self._chunk = min(capacity, prefill_chunk(executable.program))
        self._new: list[int] = []
        self._embedding = None
        if EMBED in executable.program.stages:
            self._embedding = Embedding(
                executable.program, features or [None] * batch, self._device
            )
        self.store = PagedStore(
            executable.program, batch, capacity=capacity, step=self._chunk, device=device
        )

    def step(
        self,
        tokens: Sequence[Sequence[int]],
        *,
        all_logits: bool = False,
        tree_mask: Tensor | None = None,
    ) -> Tensor:
        """Feed the next tokens of each sequence, without confirming them.

        Args:
            tokens: [B] lists, of any lengths up to T, at least one of them not empty.
            all_logits: ask for the logits after every token, not only after the last.
            tree_mask: [B, T, T] bool, which new token may see which.

        Returns:
            Logits `[B, T, V]` (columns past a sequence's tokens mean nothing), or `[B, 1, V]`.
        """
        self._new = [len(row) for row in tokens]
        T = max(self._new)
        new_len = torch.tensor(self._new, dtype=torch.int64)
        column = torch.arange(T)
        starts = torch.tensor(self.store.lengths, dtype=torch.int64)[:, None]
        positions = torch.where(column < new_len[:, None], starts + column, 0)
        last = (new_len[:, None] - 1).clamp(min=0)
        arguments = {
            "positions": positions,
            "new_len": new_len,
            "logit_rows": column.expand(len(tokens), T).contiguous() if all_logits else last,
        }
        inputs: dict[str, Tensor | list[Tensor] | None] = {
            name: value.to(self._device) for name, value in arguments.items()
        }
        inputs |= self._read(tokens, T)
        inputs["tree_mask"] = tree_mask
        outputs = self._executable(STAGE, inputs | self.store.reserve(self._new))
        self.store.adopt(outputs)
        return outputs["logits"]

    def _read(self, tokens: Sequence[Sequence[int]], T: int) -> dict[str, Tensor]:
        """The tokens as the decoder takes them: ids [B, T], or their embeddings [B, T, W]."""
        filler = 0 if self._embedding is None else self._embedding.filler
        ids = torch.tensor([[*row, *[filler] * (T - len(row))] for row in tokens])
        ids = ids.to(self._device)
        if self._embedding is None:
            return {"ids": ids}
        return {"embeds": self._embedding.embeds(self._executable, ids, tokens)}

    def commit(self, accepted: Sequence[int] | None = None) -> None:
        """Confirm the first `accepted[b]` tokens of the last step (None: all), forget the rest."""
        self.store.commit(self._new if accepted is None else list(accepted))

    def advance(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Feed and confirm tokens `[B]`; the logits `[B, V]` after the last of each sequence.

        Long prompts go in pieces; the last call holds the last token of every sequence.
        """
        *early, last = self._chunks(tokens)
        for part in early:
            self.step(part)
            self.commit()
        logits = self.step(last)
        self.commit()
        return logits[:, 0]

    def advance_all(self, tokens: Sequence[Sequence[int]]) -> list[Tensor]:
        """Feed and confirm tokens `[B]`; the logits `[T_b, V]` after every token of each."""
        parts: list[list[Tensor]] = [[] for _ in tokens]
        for part in self._chunks(tokens):
            logits = self.step(part, all_logits=True)
            self.commit()
            for row, new in enumerate(part):
                parts[row].append(logits[row, : len(new)])
        return [torch.cat(rows) for rows in parts]

    def keep_rows(self, rows: list[int]) -> None:
        """Go on with these sequences only."""
        if len(rows) < len(self.store.lengths):
            self.store.keep_rows(rows)
            if self._embedding is not None:
                self._embedding.keep_rows(rows)

    def _chunks(self, tokens: Sequence[Sequence[int]]) -> list[list[Sequence[int]]]:
        """Steps that feed `tokens`; sequences with fewer pieces join later."""
        pieces = [self._pieces(row, new) for row, new in enumerate(tokens)]
        depth = max(map(len, pieces))
        padded: list[list[Sequence[int]]] = [[()] * (depth - len(p)) + p for p in pieces]
        return [list(step) for step in zip(*padded, strict=True)]

    def _pieces(self, row: int, new: Sequence[int]) -> list[Sequence[int]]:
        """The tokens of one sequence, cut to chunks and where scheduled work is due."""
        length, start, pieces = self.store.lengths[row], 0, []
        while start < len(new):
            size = min(self._chunk, self.store.room(length + start) or self._chunk)
            pieces.append(new[start : start + size])
            start += size
        return pieces


def prefill_chunk(program: Program) -> int:
    """The most tokens of a prompt to feed at once.

    A group that evicts by window holds its window and one chunk: a chunk no longer than the
    window at most doubles it.
    """
    windows = [e.group.window for e in evictions(program) if e.group.window is not None]
    return max(program.page_size, min([PREFILL_CHUNK, *windows]))
