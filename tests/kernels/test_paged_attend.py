"""`effc::attend` against attention written element by element in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

import effc.kernels.paged.op as paged
from effc.kernels.paged.attention import QUERY_BLOCK, ROWS_ALONE
from effc.kernels.paged.formats import FORMATS, page_format

P, D_K, D_V = 4, 6, 5


@dataclass
class Case:
    """Arguments of one call, by name."""

    q: Tensor
    keys: list[Tensor]
    values: list[Tensor]
    key_format: str
    value_format: str
    table: Tensor
    index: Tensor | None
    token_index: Tensor
    lengths: Tensor
    tree_mask: Tensor | None = None
    causal: bool = True
    window: int | None = None
    chunk: int | None = None
    scale: float = 0.4
    softcap: float | None = None
    sinks: Tensor | None = None

    def run(self) -> Tensor:
        return paged.attend(*vars(self).values())


def make_case(
    seed: int,
    *,
    B: int = 3,
    T: int = 3,
    heads: tuple[int, int] = (4, 2),
    head_groups: int = 1,
    indexed: bool = True,
    form: str = "fp32",
    history: int = 17,
) -> Case:
    """A random cache: ragged lengths, evicted and stale slots, pages in random order.

    Unused pages and slots hold NaN where the format can, so that reading one cannot go unnoticed.
    """
    g = torch.Generator().manual_seed(seed)
    H, H_kv = heads
    lengths = torch.randint(0, history + 1, (B,), generator=g)
    new_len = torch.randint(1, T + 1, (B,), generator=g)
    new_len[0] = T
    width = -(-(history + T) // P) + 1
    pages = B * head_groups * width + 3
    table = torch.randperm(pages, generator=g)[: B * head_groups * width].int()
    table = table.view(B, head_groups, width).clone()
    index = torch.full((pages, P), -1, dtype=torch.int32)
    raw = [torch.full((pages, H_kv // head_groups, P, D), math.nan) for D in (D_K, D_V)]
    for b in range(B):
        old = int(lengths[b]) if indexed else 0
        for h in range(head_groups):
            fill_pages(g, table[b, h], index, raw, old, int(lengths[b] + new_len[b]))
    if form == "int8":
        raw = [pool.nan_to_num(1e4) for pool in raw]
    codec = page_format(form)
    positions = paged.token_index(lengths, new_len, torch.zeros(B, T))
    return Case(
        torch.randn(B, H, T, D_K, generator=g),
        codec.encode(raw[0]),
        codec.encode(raw[1]),
        form,
        form,
        table,
        index if indexed else None,
        positions,
        lengths,
    )


def fill_pages(
    g: torch.Generator, table: Tensor, index: Tensor, pools: list[Tensor], old: int, end: int
) -> None:
    """Write `end` tokens into the pages of a table row `[N]`, of which it keeps those it needs.

    Some of the first `old` tokens are evicted. Two tokens past the end were rolled back: their
    slots are stale but readable.
    """
    table[-(-end // P) :] = -1
    for j in range(end + 2):
        page, offset = int(table[j // P]), j % P
        if page < 0:
            continue
        evicted = j < old and torch.rand((), generator=g) < 0.3
        index[page, offset] = -1 if evicted else j
        for pool in pools:
            pool[page, :, offset] = torch.randn(pool.shape[1], pool.shape[3], generator=g)


def sees(case: Case, b: int, t: int, j: int) -> bool:
    """The rule of visibility, word by word."""
    i = int(case.token_index[b, t])
    start = int(case.lengths[b])
    valid = j >= 0 and i >= 0 and j <= int(case.token_index[b].max())
    fresh = start <= j < start + case.q.shape[2]
    return (
        valid
        and (not case.causal or j <= i)
        and (case.window is None or i - j < case.window)
        and (case.chunk is None or j // case.chunk == i // case.chunk)
        and (case.tree_mask is None or not fresh or bool(case.tree_mask[b, t, j - start]))
    )


def visible_slots(case: Case, b: int, h: int, t: int) -> Iterator[tuple[int, int]]:
    """Page and offset of every slot that a query of a head group sees."""
    for n, page in enumerate(case.table[b, h].tolist()):
        for offset in range(P) if page >= 0 else ():
            j = n * P + offset if case.index is None else int(case.index[page, offset])
            if sees(case, b, t, j):
                yield page, offset


def brute_force(case: Case) -> Tensor:
    """Attention one query and one key at a time."""
    keys = page_format(case.key_format).decode(case.keys, torch.float64)
    values = page_format(case.value_format).decode(case.values, torch.float64)
    B, H, T, _ = case.q.shape
    per_group = keys.shape[1]
    G = H // (per_group * case.table.shape[1])
    out = torch.zeros(B, H, T, values.shape[-1], dtype=torch.float64)
    for b, head, t in torch.cartesian_prod(*map(torch.arange, (B, H, T))).tolist():
        group, inner = divmod(head // G, per_group)
        query = case.q[b, head, t].double()
        terms = []
        for page, offset in visible_slots(case, b, group, t):
            score = float(query @ keys[page, inner, offset]) * case.scale
            if case.softcap is not None:
                score = case.softcap * math.tanh(score / case.softcap)
            terms.append((math.exp(score), values[page, inner, offset]))
        total = sum(weight for weight, _ in terms)
        if case.sinks is not None:
            total += math.exp(float(case.sinks[head]))
        for weight, value in terms:
            out[b, head, t] += weight / total * value
    return out


def tree_of(T: int, B: int) -> Tensor:
    """Each new token sees itself and its ancestors in a random tree."""
    g = torch.Generator().manual_seed(5)
    mask = torch.eye(T, dtype=torch.bool).repeat(B, 1, 1)
    for b in range(B):
        for t in range(1, T):
            parent = int(torch.randint(-1, t, (), generator=g))
            if parent >= 0:
                mask[b, t] |= mask[b, parent]
    return mask


VARIANTS = {
    "plain": {},
    "window": {"window": 5},
    "window-1": {"window": 1},
    "chunk": {"chunk": 6},
    "window-and-chunk": {"window": 4, "chunk": 7},
    "softcap": {"softcap": 0.7},
    "sinks": {"sinks": torch.tensor([0.3, -1.0, 2.0, 0.0])},
    "not-causal": {"causal": False},
    "tree": {"tree_mask": tree_of(3, 3)},
    "bidirectional-block": {"causal": False, "tree_mask": torch.ones(3, 3, 3, dtype=torch.bool)},
    "all": {
        "window": 9,
        "softcap": 1.5,
        "sinks": torch.tensor([0.1, 0.2, -0.3, 0.4]),
        "tree_mask": tree_of(3, 3),
    },
}


def close(case: Case) -> None:
    """The bound is 40 fp32 roundings of values of size one; a wrong slot is off by far more."""
    torch.testing.assert_close(case.run().double(), brute_force(case), rtol=0, atol=40 * 2**-24)


@pytest.mark.parametrize("indexed", [True, False], ids=["indexed", "linear"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_attend_matches_brute_force(variant: str, indexed: bool) -> None:
    for seed in range(3):
        close(replace(make_case(seed, indexed=indexed), **VARIANTS[variant]))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("head_groups", [1, 2])
@pytest.mark.parametrize("heads", [(4, 2), (6, 2), (2, 2)])
def test_attend_over_formats_heads_and_head_groups(
    form: str, head_groups: int, heads: tuple[int, int]
) -> None:
    close(make_case(7, form=form, head_groups=head_groups, heads=heads))


@pytest.mark.parametrize("variant", VARIANTS)
def test_long_calls_share_blocks_and_mean_the_same(variant: str) -> None:
    T = 6
    assert 3 * T > ROWS_ALONE
    options = dict(VARIANTS[variant])
    if options.get("tree_mask") is not None:
        options["tree_mask"] = tree_of(T, 3)
    close(replace(make_case(11, T=T), **options))


def test_prompts_longer_than_a_block() -> None:
    case = make_case(13, B=1, T=QUERY_BLOCK + 9, heads=(2, 1), indexed=False, history=0)
    close(case)
    close(replace(case, window=20))


def test_padding_and_queries_that_see_nothing_give_zeros() -> None:
    for T in (3, 6):
        case = make_case(17, T=T)
        case.token_index[1] = -1
        assert case.run()[1].eq(0).all()
        nothing = replace(case, table=torch.full_like(case.table, -1), causal=False)
        assert nothing.run().eq(0).all()


def test_results_keep_the_type_of_the_query() -> None:
    case = make_case(19)
    half = replace(case, q=case.q.bfloat16())
    assert half.run().dtype == torch.bfloat16
    exact = brute_force(half)
    torch.testing.assert_close(half.run().double(), exact, rtol=2**-8, atol=2**-10)


def test_non_contiguous_inputs_mean_the_same() -> None:
    case = make_case(23)
    strided = replace(
        case,
        q=case.q.transpose(1, 2).contiguous().transpose(1, 2),
        keys=[plane.transpose(0, 2).contiguous().transpose(0, 2) for plane in case.keys],
        table=case.table.repeat_interleave(2, dim=2)[..., ::2],
    )
    assert torch.equal(strided.run(), case.run())


def alone(case: Case, b: int, t: int) -> Case:
    """The call for one query, with a table cut to the pages it needs."""
    i = int(case.token_index[b, t])
    table = case.table[b : b + 1]
    return replace(
        case,
        q=case.q[b : b + 1, :, t : t + 1].contiguous(),
        table=table[..., : -(-(i + 1) // P)].contiguous(),
        token_index=case.token_index[b : b + 1, t : t + 1],
        lengths=torch.tensor([i]),
    )


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("form", ["fp32", "int8"])
@pytest.mark.parametrize("options", [{}, {"window": 70}, {"softcap": 2.0}], ids=str)
def test_rows_do_not_depend_on_company(form: str, options: dict[str, object], threads: int) -> None:
    """Bit for bit: a query in a batch of 16 rows, and the same query alone on one thread."""
    case = replace(
        make_case(29, B=4, T=4, heads=(14, 2), form=form, history=300, indexed=True), **options
    )
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        together = case.run()
        torch.set_num_threads(1)
        for b, t in (case.token_index >= 0).nonzero().tolist():
            assert torch.equal(together[b, :, t], alone(case, b, t).run()[0, :, 0])
    finally:
        torch.set_num_threads(before)
