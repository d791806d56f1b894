"""The paged store under random walks: who owns which page, and where every token is."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
import torch

from effc.diagnostics import GenerationError, InternalError
from effc.ir.program import CacheSite, ModelInfo, Program, RetentionGroup, ScheduleEntry
from effc.ir.weights import Weights
from effc.runtime.kv_store import PagedStore

P, WINDOW, STEP, CAPACITY = 4, 7, 6, 60
EVICT = ScheduleEntry("each_step", "evict_window", {"group": "window"})


def make_program() -> Program:
    groups = (
        RetentionGroup("full"),
        RetentionGroup("heads", head_groups=2, indexed=True),
        RetentionGroup("window", head_groups=2, window=WINDOW, indexed=True),
    )
    sites = (
        CacheSite(0, "layers.0", 0, 2, 8, 6, "fp32", "fp16", "full"),
        CacheSite(1, "layers.1", 1, 2, 8, 8, "int8", "bf16", "window"),
        CacheSite(2, "layers.2", 2, 4, 8, 8, "fp16", "fp16", "heads"),
        CacheSite(3, "layers.3", 3, 4, 8, 8, "int8", "int8", "window"),
    )
    return Program(
        {},
        Weights(),
        ModelInfo("test", "test"),
        cache_sites=sites,
        groups=groups,
        schedule=(EVICT,),
        page_size=P,
        loop="autoregressive",
    )


class Walk:
    """A store, and what it should hold: per row, a name for every confirmed token.

    The names are written into the planes of two sites, so that a slot handed out twice, moved or
    overwritten shows.
    """

    MARKED = {"full": "k0", "window": "k1_scale"}

    def __init__(self, seed: int, batch: int = 3) -> None:
        self.random = random.Random(seed)
        self.program = make_program()
        self.store = PagedStore(self.program, batch, capacity=CAPACITY, step=STEP)
        self.names: list[list[int]] = [[] for _ in range(batch)]
        self.fresh = 0

    def step(self) -> None:
        """Reserve, write, and commit a part."""
        room = [min(STEP, CAPACITY - len(row)) for row in self.names]
        new = [self.random.randint(0, most) for most in room]
        if not any(new):
            return
        state = self.store.reserve(new)
        named = [self._names(count) for count in new]
        for group in self.program.groups:
            self._check_slots(state, group, new)
        for group, plane in self.MARKED.items():
            for b, row in enumerate(named):
                for t, name in enumerate(row):
                    for slot in state[f"slots_{group}"][b, :, t].tolist():
                        state[plane][slot // P, :, slot % P] = name
        accepted = [self.random.choice([count, self.random.randint(0, count)]) for count in new]
        self.store.commit(accepted)
        for row, tokens, count in zip(self.names, named, accepted, strict=True):
            row += tokens[:count]

    def truncate(self) -> None:
        """Cut within what the window still allows."""
        first = [self.store._tables["window"].first_token(b) for b in range(len(self.names))]
        lengths = []
        for row, oldest in zip(self.names, first, strict=True):
            least = oldest + WINDOW - 1 if oldest else 0
            lengths.append(self.random.randint(min(least, len(row)), len(row)))
        self.store.truncate(lengths)
        self.names = [row[:length] for row, length in zip(self.names, lengths, strict=True)]

    def keep(self) -> None:
        """Drop a row, or change the order."""
        rows = list(range(len(self.names)))
        self.random.shuffle(rows)
        rows = rows[: max(1, len(rows) - self.random.randint(0, 1))]
        self.store.keep_rows(rows)
        self.names = [self.names[row] for row in rows]

    def _names(self, count: int) -> list[int]:
        self.fresh += count
        return list(range(self.fresh - count + 1, self.fresh + 1))

    def _check_slots(
        self, state: dict[str, torch.Tensor], group: RetentionGroup, new: list[int]
    ) -> None:
        slots = state[f"slots_{group.name}"]
        assert slots.shape == (len(new), group.head_groups, max(new))
        for b, count in enumerate(new):
            assert bool((slots[b, :, :count] >= 0).all() and (slots[b, :, count:] == -1).all())
        used = slots[slots >= 0].tolist()
        assert len(used) == len(set(used))
        if group.indexed:
            index = state[f"index_{group.name}"].flatten()
            for b, count in enumerate(new):
                wanted = range(len(self.names[b]), len(self.names[b]) + count)
                for h in range(group.head_groups):
                    assert index[slots[b, h, :count]].tolist() == list(wanted)

    def check(self) -> None:
        """Every page has one owner; every token that can be seen is where it should be, once."""
        for group in self.program.groups:
            table = self.store._tables[group.name].table()
            owned = table[table >= 0].tolist()
            assert len(owned) == len(set(owned))
            assert len(owned) == self.store._tables[group.name].held_pages
            for b, row in enumerate(self.names):
                for h in range(group.head_groups):
                    self._check_tokens(group, table[b, h].tolist(), row)
            self._check_free_pages_are_empty(group, set(owned))

    def _check_tokens(self, group: RetentionGroup, pages: list[int], row: list[int]) -> None:
        index = self.store._tables[group.name].index
        found: dict[int, int] = {}
        counts: Counter[int] = Counter()
        for n, page in enumerate(pages):
            for offset in range(P) if page >= 0 else ():
                token = n * P + offset if index is None else int(index[page, offset])
                counts[token] += 1
                found[token] = page * P + offset
        oldest = 0
        if group.window is not None:
            oldest = max(0, len(row) - group.window + 1)
            # Pages wholly older than the window are gone.
            assert all(token >= oldest - P + 1 for token in counts if token >= 0)
        if index is not None:
            assert max(counts, default=-1) < len(row)
        for token in range(oldest, len(row)):
            assert counts[token] == 1
            if group.name in self.MARKED:
                plane = self.store._pools[self.MARKED[group.name]]
                slot = found[token]
                assert bool((plane[slot // P, :, slot % P] == row[token]).all())

    def _check_free_pages_are_empty(self, group: RetentionGroup, owned: set[int]) -> None:
        index = self.store._tables[group.name].index
        if index is not None:
            free = [page for page in range(len(index)) if page not in owned]
            assert bool((index[free] == -1).all())


@pytest.mark.parametrize("seed", range(12))
def test_random_walks_keep_every_token_in_its_place(seed: int) -> None:
    walk = Walk(seed)
    for _ in range(60):
        walk.random.choice([walk.step] * 6 + [walk.truncate] * 2 + [walk.keep] * (seed % 2))()
        walk.check()
    walk.store.keep_rows([])
    assert walk.store.bytes()["held"] == 0
    for group in walk.program.groups:
        walk._check_free_pages_are_empty(group, set())


def run_to(store: PagedStore, length: int, step: int = 1) -> None:
    """Feed one sequence up to a length."""
    while store.lengths[0] < length:
        store.reserve([min(step, length - store.lengths[0])])
        store.commit([min(step, length - store.lengths[0])])


def test_freed_pages_are_used_again() -> None:
    store = PagedStore(make_program(), 1, capacity=CAPACITY, step=1)
    run_to(store, CAPACITY)
    window = store._tables["window"]
    # Head groups double the pages; 7 + 4 + 1 - 2 tokens need 3 pages.
    assert window.pages == 2 * 3
    assert window.taken == 2 * (CAPACITY // P) > window.pages


@pytest.mark.parametrize("step", range(1, 10))
@pytest.mark.parametrize("window", [1, 2, 4, 5, 11])
def test_window_pools_are_as_large_as_needed_and_no_larger(window: int, step: int) -> None:
    program = make_program()
    groups = tuple(replace(g, window=window) if g.window else g for g in program.groups)
    store = PagedStore(replace(program, groups=groups), 1, capacity=100, step=step)
    peak = 0
    for _ in range(40):
        store.reserve([step])
        peak = max(peak, store._tables["window"].held_pages)
        store.commit([1])
    assert peak == store._tables["window"].pages


def test_window_pools_do_not_grow_with_the_length() -> None:
    short, long = (PagedStore(make_program(), 2, capacity=n, step=STEP) for n in (40, 4000))
    for name in ("k1_codes", "v3_scale"):
        assert short._pools[name].shape == long._pools[name].shape
    assert long._pools["k0"].shape[0] == 2 * 1000


def test_bytes_are_exact() -> None:
    store = PagedStore(make_program(), 2, capacity=20, step=STEP)
    full_pages, window_pages, heads_pages = 2 * 5, 2 * 2 * 4, 2 * 2 * 5
    slot = {
        "full": 2 * (8 * 4 + 6 * 2),
        "window": (1 * (8 + 2) + 1 * 16) + 2 * (8 + 2) * 2,
        "heads": 2 * (16 + 16),
    }
    device = P * (
        full_pages * slot["full"] + window_pages * slot["window"] + heads_pages * slot["heads"]
    )
    assert store.bytes() == {
        "device": device,
        "held": 0,
        "padding": 0,
        "metadata": 4 * P * (window_pages + heads_pages),
    }
    store.reserve([5, 1])
    store.commit([5, 1])
    # Row 0 has 2 pages, row 1 has 1: 12 slots per head group, 6 of them used.
    per_slot = slot["full"] + 2 * slot["window"] + 2 * slot["heads"]
    tables = 4 * 2 * 2 * (1 + 2 + 2)
    assert store.bytes() == {
        "device": device,
        "held": 12 * per_slot,
        "padding": 6 * per_slot,
        "metadata": 4 * P * (window_pages + heads_pages) + tables,
    }
    assert sum(pool.nbytes for pool in store._pools.values()) == device


def test_counters_tell_what_happened() -> None:
    store = PagedStore(make_program(), 1, capacity=CAPACITY, step=STEP)
    store.reserve([6])
    store.commit([6])
    store.reserve([5])
    store.commit([2])
    counters = store.counters()
    assert (counters.tokens_written, counters.tokens_rolled_back) == (11, 3)
    assert counters.tokens_evicted == 0
    run_to(store, 16)
    # The token 16 sees 10..16: pages 0 and 1 are gone from both head groups.
    assert store.counters().tokens_evicted == 2 * 8


def test_functional_outputs_become_the_state() -> None:
    store = PagedStore(make_program(), 1, capacity=8, step=4)
    state = store.reserve([2])
    store.adopt({"k0": state["k0"] + 1, "logits": torch.zeros(1)})
    store.commit([2])
    assert store.reserve([1])["k0"].eq(1).all()


def test_misuse_is_refused() -> None:
    store = PagedStore(make_program(), 1, capacity=24, step=STEP)
    with pytest.raises(InternalError, match="nothing was reserved"):
        store.commit([0])
    store.reserve([3])
    with pytest.raises(InternalError, match="reserved twice"):
        store.reserve([1])
    with pytest.raises(InternalError, match="4 of 3 reserved tokens"):
        store.commit([4])


def test_capacity_and_evicted_tokens_are_guarded() -> None:
    store = PagedStore(make_program(), 1, capacity=24, step=STEP)
    run_to(store, 24, STEP)
    with pytest.raises(InternalError, match="has 6 pages and needs 1 more"):
        store.reserve([1])
    store = PagedStore(make_program(), 1, capacity=24, step=STEP)
    run_to(store, 24, STEP)
    with pytest.raises(InternalError, match="24 tokens to 20 needs tokens before 16"):
        store.truncate([20])
    store.truncate([23])
    with pytest.raises(InternalError, match="23 tokens cannot be cut to 24"):
        store.truncate([24])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (ScheduleEntry("each_step", "compact"), "asks for 'compact' 'each_step'"),
        (ScheduleEntry("every", "evict_window", {"group": "window"}), "'evict_window' 'every'"),
        (ScheduleEntry("each_step", "evict_window", {"group": "full"}), "'full', which is no"),
        (ScheduleEntry("each_step", "evict_window"), "groups: full, heads, window"),
    ],
)
def test_unknown_scheduled_work_is_refused(entry: ScheduleEntry, message: str) -> None:
    program = replace(make_program(), schedule=(entry,))
    with pytest.raises(GenerationError, match=r"E0704(.|\n)*" + message):
        PagedStore(program, 1, capacity=8, step=1)
