"""The operators of the decode stage: write new tokens into pages, attend over pages.

    pages     planes `[pages, Hg, P, ...]` of a page format; Hg = H_kv / Gh heads of one head group
    slot      page * P + offset, where one token of one head group lies; -1 is no slot
    table     `[B, Gh, N]` int32, the pages of a sequence and head group in order; -1 is no page
    index     `[pages, P]` int32, the token index each slot holds; -1 is empty

Graphs never allocate: the engine reserves slots before a call (`effc.runtime.kv_store`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from effc.kernels.paged.attention import attend as _attend
from effc.kernels.paged.formats import page_format
from effc.kernels.registry import define


def _token_index(lengths: Tensor, new_len: Tensor, ids: Tensor) -> Tensor:
    column = torch.arange(ids.shape[1], device=ids.device)
    return torch.where(column < new_len[:, None], lengths[:, None] + column, -1)


def _token_index_fake(lengths: Tensor, new_len: Tensor, ids: Tensor) -> Tensor:
    return lengths.new_empty(ids.shape[0], ids.shape[1])


token_index = define(
    "token_index(Tensor lengths, Tensor new_len, Tensor ids) -> Tensor",
    _token_index,
    _token_index_fake,
)
"""Token index `[B, T]` of every new token.

`lengths` and `new_len` [B] int64, `ids` [B, T]: lengths[b] + i for i < new_len[b], else -1.
"""


def _cache_write_(planes: Sequence[Tensor], values: Tensor, slots: Tensor, format: str) -> None:
    page_size = planes[0].shape[2]
    by_group = values.unflatten(1, (slots.shape[1], -1)).movedim(3, 2)  # [B, Gh, T, Hg, D]
    written = slots >= 0
    target = slots[written]
    page, offset = target // page_size, target % page_size
    encoded = page_format(format).encode(by_group[written])  # [n, Hg, D]
    for plane, new in zip(planes, encoded, strict=True):
        plane[page, :, offset] = new


def _cache_write(
    planes: Sequence[Tensor], values: Tensor, slots: Tensor, format: str
) -> list[Tensor]:
    updated = [plane.clone() for plane in planes]
    _cache_write_(updated, values, slots, format)
    return updated


def _cache_write_fake(
    planes: Sequence[Tensor], values: Tensor, slots: Tensor, format: str
) -> list[Tensor]:
    return [torch.empty_like(plane) for plane in planes]


def _nothing(planes: Sequence[Tensor], values: Tensor, slots: Tensor, format: str) -> None:
    """The in-place form has no result whose shape could be asked for."""


cache_write = define(
    "cache_write(Tensor[] planes, Tensor values, Tensor slots, str format) -> Tensor[]",
    _cache_write,
    _cache_write_fake,
)
"""The planes after `values` [B, H_kv, T, D] went to `slots` [B, Gh, T]; slot -1 is not written."""

cache_write_ = define(
    "cache_write_(Tensor(a!)[] planes, Tensor values, Tensor slots, str format) -> ()",
    _cache_write_,
    _nothing,
)
"""`cache_write` in place; bufferization puts it where the old planes are not read again."""


def _attend_fake(
    q: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    key_format: str,
    value_format: str,
    *rest: object,
) -> Tensor:
    return q.new_empty(*q.shape[:3], page_format(value_format).width(values))


attend = define(
    "attend(Tensor q, Tensor[] keys, Tensor[] values, str key_format, str value_format,"
    " Tensor table, Tensor? index, Tensor token_index, Tensor lengths, Tensor? tree_mask,"
    " bool causal, int? window, int? chunk, float scale, float? softcap, Tensor? sinks)"
    " -> Tensor",
    _attend,
    _attend_fake,
)
"""Attention of new tokens over pages: q `[B, H, T, D_k]` -> `[B, H, T, D_v]`, sums in fp32.

A slot that the table of sequence b names and that holds token j (`index`; without one, its linear
place in the table) is seen by query t with token index i = token_index[b, t] iff
  - j >= 0 and i >= 0,
  - not `causal`, or j <= i,
  - no `window`, or i - j < window,
  - no `chunk`, or j // chunk == i // chunk,
  - no `tree_mask` [B, T, T], or j is no new token, or tree_mask[b, t, j - lengths[b]],
  - j is no rolled-back or not yet written token: j <= max of token_index[b].
Scores are `scale` * q.k, then softcap * tanh(scores / softcap) if given; `sinks` [H] are extra
logits that take part in the denominator only. A query that sees nothing gives zeros.
Head h reads key/value head h // G of head group (h // G) // Hg.
"""


def _select_rows(x: Tensor, rows: Tensor) -> Tensor:
    return x[torch.arange(x.shape[0], device=x.device)[:, None], rows]


def _select_rows_fake(x: Tensor, rows: Tensor) -> Tensor:
    return x.new_empty(rows.shape[0], rows.shape[1], x.shape[2])


select_rows = define(
    "select_rows(Tensor x, Tensor rows) -> Tensor", _select_rows, _select_rows_fake
)
"""The rows of `x` [B, T, W] that `rows` [B, R] name: `[B, R, W]`."""
