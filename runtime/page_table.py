"""Which pages hold which tokens: the bookkeeping of one retention group, on the host.

The tokens of a sequence lie in its pages in order, P to a page; eviction drops whole pages at the
front. So token j of a sequence that lost `dropped` pages is found in its page number
j // P - dropped, at offset j % P: no slot needs to be remembered.
"""

from __future__ import annotations

import torch
from torch import Tensor

from effc.diagnostics import InternalError
from effc.ir.program import RetentionGroup


class PageTable:
    """The pages of one retention group: a free list, and who holds what.

    Args:
        group: the retention group.
        batch: B, sequences at the start.
        pages: how many pages exist.
        page_size: P.
        device: where the tables for the graph are put.
    """

    def __init__(
        self,
        group: RetentionGroup,
        batch: int,
        pages: int,
        page_size: int,
        device: torch.device,
    ) -> None:
        self.group = group
        self.pages = pages
        self.page_size = page_size
        self.taken = 0
        self.evicted = 0
        self.index = _empty_index(pages, page_size, device) if group.indexed else None
        self._device = device
        self._free = list(range(pages - 1, -1, -1))
        self._held: list[list[list[int]]] = [
            [[] for _ in range(group.head_groups)] for _ in range(batch)
        ]
        self._dropped = [0] * batch
        self._table: Tensor | None = None

    @property
    def held_pages(self) -> int:
        """Pages in use."""
        return self.pages - len(self._free)

    @property
    def nbytes(self) -> int:
        """Bytes of table and index on the device."""
        index = 0 if self.index is None else self.index.nbytes
        return self.table().nbytes + index

    def first_token(self, row: int) -> int:
        """The oldest token that the pages of a sequence still hold."""
        return self._dropped[row] * self.page_size

    def table(self) -> Tensor:
        """`[B, Gh, N]` int32: page ids in order, -1 beyond the last."""
        if self._table is None:
            width = max((len(pages) for row in self._held for pages in row), default=0)
            padded = [[pages + [-1] * (width - len(pages)) for pages in row] for row in self._held]
            shape = (len(padded), self.group.head_groups, width)
            flat = torch.tensor(padded, dtype=torch.int32, device=self._device)
            self._table = flat.view(shape)
        return self._table

    def reserve(self, lengths: list[int], new_lens: list[int]) -> Tensor:
        """Take pages for new tokens and note their index.

        Args:
            lengths: [B], tokens before them.
            new_lens: [B], how many there are.

        Returns:
            Their slots `[B, Gh, max(new_lens)]` int64, -1 in the columns past `new_lens`.
        """
        for row, (length, new) in enumerate(zip(lengths, new_lens, strict=True)):
            self._extend(row, length + new)
        width = max(new_lens)
        slots = [
            [
                self._slots(row, head_group, length, length + new) + [-1] * (width - new)
                for head_group in range(self.group.head_groups)
            ]
            for row, (length, new) in enumerate(zip(lengths, new_lens, strict=True))
        ]
        if self.index is not None:
            self._note(slots, lengths, new_lens)
        return torch.tensor(slots, dtype=torch.int64, device=self._device)

    def truncate(self, row: int, length: int, before: int) -> None:
        """Forget tokens `length..before - 1` of a sequence; free the pages wholly beyond."""
        if self.index is not None and before > length:
            stale = [
                slot
                for head_group in range(self.group.head_groups)
                for slot in self._slots(row, head_group, length, before)
            ]
            self.index.view(-1)[stale] = -1
        keep = max(0, -(-length // self.page_size) - self._dropped[row])
        for pages in self._held[row]:
            self._release(pages[keep:])
            del pages[keep:]

    def evict(self, row: int, length: int) -> None:
        """Drop the pages of a sequence that no token from `length` on can see any more."""
        if self.group.window is None or self.index is None:
            raise InternalError(
                "E0901", f"group {self.group.name!r} has no window, or no index to evict by"
            )
        # The next token has index `length`: it sees tokens above `length - window`.
        oldest = max(0, length - self.group.window + 1)
        count = oldest // self.page_size - self._dropped[row]
        if count <= 0:
            return
        for pages in self._held[row]:
            self._release(pages[:count])
            del pages[:count]
        self._dropped[row] += count
        self.evicted += count * self.page_size * self.group.head_groups

    def keep_rows(self, rows: list[int]) -> None:
        """Keep these sequences, in this order, and free the pages of all others."""
        for row in set(range(len(self._held))) - set(rows):
            for pages in self._held[row]:
                self._release(pages)
        self._held = [self._held[row] for row in rows]
        self._dropped = [self._dropped[row] for row in rows]
        self._table = None

    def _extend(self, row: int, length: int) -> None:
        """Take pages until a sequence has room for `length` tokens."""
        wanted = -(-length // self.page_size) - self._dropped[row]
        for pages in self._held[row]:
            missing = wanted - len(pages)
            if missing > len(self._free):
                raise InternalError(
                    "E0901",
                    f"the cache of group {self.group.name!r} has {self.pages} pages and needs "
                    f"{missing - len(self._free)} more: it was sized for fewer tokens",
                )
            for _ in range(missing):
                pages.append(self._free.pop())
                self.taken += 1
                self._table = None

    def _slots(self, row: int, head_group: int, start: int, end: int) -> list[int]:
        """The slots of tokens `start..end - 1`."""
        pages, P, dropped = self._held[row][head_group], self.page_size, self._dropped[row]
        return [pages[token // P - dropped] * P + token % P for token in range(start, end)]

    def _note(self, slots: list[list[list[int]]], lengths: list[int], new_lens: list[int]) -> None:
        """Write the token index of new tokens beside their slots."""
        assert self.index is not None
        flat, tokens = [], []
        for row, (length, new) in enumerate(zip(lengths, new_lens, strict=True)):
            for group_slots in slots[row]:
                flat += group_slots[:new]
                tokens += range(length, length + new)
        values = torch.tensor(tokens, dtype=torch.int32, device=self._device)
        self.index.view(-1)[flat] = values

    def _release(self, pages: list[int]) -> None:
        """Return pages to the free list, emptied."""
        if not pages:
            return
        if self.index is not None:
            self.index[pages] = -1
        self._free += reversed(pages)
        self._table = None


def _empty_index(pages: int, page_size: int, device: torch.device) -> Tensor:
    return torch.full((pages, page_size), -1, dtype=torch.int32, device=device)
