"""The state of a batch in flight: pools of pages, and how many tokens are confirmed.

A call goes in three steps. `reserve` takes slots for the new tokens and returns the state inputs
of the stage; the stage writes keys and values into them; `commit` confirms the first tokens of
each sequence and rolls the others back. Eviction acts on confirmed tokens only.

A pool is one tensor per site and plane. It is sized once, for the longest that its sequences can
become (for groups that evict, for their window), and never grows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from effc.diagnostics import InternalError
from effc.ir.program import CacheSite, Program, RetentionGroup
from effc.kernels.paged.formats import PageFormat, page_format
from effc.runtime.page_table import PageTable
from effc.runtime.schedule import evictions, room


@dataclass
class StoreCounters:
    """What happened in a store.

    Attributes:
        tokens_written: tokens reserved, over all sequences.
        tokens_rolled_back: those of them that were not confirmed.
        tokens_evicted: confirmed tokens dropped, per retention group and head group.
        pages_taken: pages given to sequences, over all groups.
    """

    tokens_written: int = 0
    tokens_rolled_back: int = 0
    tokens_evicted: int = 0
    pages_taken: int = 0


class PagedStore:
    """Pages for the cache sites of a program.

    Args:
        program: its sites, groups, page size and schedule.
        batch: B, sequences at the start.
        capacity: the most tokens a sequence may come to hold.
        step: the most new tokens per sequence and call.
        device: where the pools live.
    """

    def __init__(
        self,
        program: Program,
        batch: int,
        *,
        capacity: int,
        step: int,
        device: torch.device | str = "cpu",
    ) -> None:
        self._program = program
        self._device = torch.device(device)
        self._evictions = evictions(program)
        self.lengths = [0] * batch
        self._pending: list[int] | None = None
        self._written = self._rolled_back = 0
        self._tables = {
            group.name: PageTable(
                group,
                batch,
                batch * group.head_groups * self._pages_each(group, capacity, step),
                program.page_size,
                self._device,
            )
            for group in program.groups
        }
        self._slot_bytes = {group.name: _bytes_per_slot(program, group) for group in program.groups}
        self._pools = {
            name: pool
            for site in program.cache_sites
            for name, pool in self._site_pools(site).items()
        }
        self._device_bytes = sum(pool.nbytes for pool in self._pools.values())

    def reserve(self, new_lens: list[int]) -> dict[str, Tensor]:
        """Take slots for `new_lens[b]` new tokens of each sequence.

        Returns:
            The state inputs of the next call, by name.
        """
        if self._pending is not None:
            raise InternalError("E0901", "tokens were reserved twice without a commit between")
        for length, new in zip(self.lengths, new_lens, strict=True):
            if new > (most := self.room(length) or new):
                raise InternalError(
                    "E0901",
                    f"{new} tokens after {length} reach past scheduled work; at most {most}",
                )
        self._pending = list(new_lens)
        self._written += sum(new_lens)
        state = {"lengths": torch.tensor(self.lengths, dtype=torch.int64, device=self._device)}
        for name, table in self._tables.items():
            state[f"slots_{name}"] = table.reserve(self.lengths, new_lens)
            state[f"table_{name}"] = table.table()
            if table.index is not None:
                state[f"index_{name}"] = table.index
        return state | self._pools

    def adopt(self, outputs: Mapping[str, Tensor]) -> None:
        """Keep the planes that a functional stage returned instead of writing in place."""
        for name in self._pools:
            self._pools[name] = outputs.get(name, self._pools[name])

    def commit(self, accepted: list[int]) -> None:
        """Confirm the first `accepted[b]` reserved tokens, roll back the rest, evict."""
        if self._pending is None:
            raise InternalError("E0901", "nothing was reserved that could be committed")
        for row, (taken, new) in enumerate(zip(accepted, self._pending, strict=True)):
            if not 0 <= taken <= new:
                raise InternalError("E0901", f"{taken} of {new} reserved tokens cannot be accepted")
            end = self.lengths[row] + new
            self.lengths[row] += taken
            self._forget(row, end)
            self._rolled_back += new - taken
        self._pending = None
        for eviction in self._evictions:
            for row, length in enumerate(self.lengths):
                if eviction.due(length):
                    self._tables[eviction.group.name].evict(row, length)

    def room(self, length: int) -> int | None:
        """How many tokens a call may add to a sequence of `length`; None: any number."""
        return room(self._evictions, length)

    def truncate(self, lengths: list[int]) -> None:
        """Forget confirmed tokens: sequence b keeps its first `lengths[b]`.

        Raises:
            InternalError: the next token of a shortened sequence could see an evicted one.
        """
        for row, length in enumerate(lengths):
            before = self.lengths[row]
            if not 0 <= length <= before:
                raise InternalError("E0901", f"{before} tokens cannot be cut to {length}")
            for eviction in self._evictions:
                name, window = eviction.group.name, eviction.group.window
                first = self._tables[name].first_token(row)
                if window is not None and length < before and first > max(0, length - window + 1):
                    raise InternalError(
                        "E0901",
                        f"cutting {before} tokens to {length} needs tokens before {first}, which "
                        f"group {name!r} has evicted",
                    )
            self.lengths[row] = length
            self._forget(row, before)

    def keep_rows(self, rows: list[int]) -> None:
        """Keep these sequences, in this order, and free the pages of all others."""
        self.lengths = [self.lengths[row] for row in rows]
        for table in self._tables.values():
            table.keep_rows(rows)

    def counters(self) -> StoreCounters:
        """What happened so far."""
        tables = self._tables.values()
        return StoreCounters(
            tokens_written=self._written,
            tokens_rolled_back=self._rolled_back,
            tokens_evicted=sum(table.evicted for table in tables),
            pages_taken=sum(table.taken for table in tables),
        )

    def bytes(self) -> dict[str, int]:
        """Bytes by purpose.

        Returns:
            device: all pools. held: the pages in use, a part of device. padding: the slots of
            pages in use that hold no confirmed token, a part of held. metadata: tables and
            indices, beside the pools.
        """
        held = padding = 0
        for name, table in self._tables.items():
            slot = self._slot_bytes[name]
            slots = table.held_pages * table.page_size
            used = sum(length - table.first_token(row) for row, length in enumerate(self.lengths))
            held += slots * slot
            padding += (slots - used * table.group.head_groups) * slot
        return {
            "device": self._device_bytes,
            "held": held,
            "padding": padding,
            "metadata": sum(table.nbytes for table in self._tables.values()),
        }

    def _forget(self, row: int, before: int) -> None:
        for table in self._tables.values():
            table.truncate(row, self.lengths[row], before)

    def _pages_each(self, group: RetentionGroup, capacity: int, step: int) -> int:
        """Pages per sequence and head group."""
        P = self._program.page_size
        found = next((e for e in self._evictions if e.group == group), None)
        if found is not None and group.window is not None:
            # After eviction at most window - 1 tokens are visible, and they start anywhere in
            # the first page; until the next one calls add `step`, or `every` in all.
            capacity = min(capacity, group.window - 1 + P - 1 + (found.every or step))
        return -(-capacity // P)

    def _site_pools(self, site: CacheSite) -> dict[str, Tensor]:
        """Empty planes of a site's keys and values, by input name."""
        table = self._tables[site.group]
        leading = (table.pages, site.kv_heads // table.group.head_groups, table.page_size)
        pools = {}
        for base, form, width in _kinds(site):
            for name, plane in zip(form.input_names(base), form.planes, strict=True):
                shape = (*leading, *plane.shape(width))
                pools[name] = torch.zeros(shape, dtype=plane.dtype, device=self._device)
        return pools


def _bytes_per_slot(program: Program, group: RetentionGroup) -> int:
    """Bytes of one token of one head group, over all sites of the group."""
    return sum(
        form.bytes_per_token(width) * (site.kv_heads // group.head_groups)
        for site in program.cache_sites
        if site.group == group.name
        for _, form, width in _kinds(site)
    )


def _kinds(site: CacheSite) -> list[tuple[str, PageFormat, int]]:
    """Input name, format and width of a site's keys and of its values."""
    return [
        (f"k{site.index}", page_format(site.key_format), site.key_width),
        (f"v{site.index}", page_format(site.value_format), site.value_width),
    ]
