"""Attention over pages: the reference, which is the meaning of `effc::attend`.

Every block of queries gathers exactly the slots that some query of it may see and computes over
nothing else. Up to `ROWS_ALONE` queries a block is a single query, so its result cannot depend
on batch mates, on the other queries of the call or on what else the tables name: the same slots
in the same order meet the same sums, bit for bit. More queries share blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from effc.kernels.paged.formats import PageFormat, page_format

ROWS_ALONE = 16
QUERY_BLOCK = 128


@dataclass(frozen=True)
class Visibility:
    """Which tokens a query may see.

    Attributes:
        causal: none after its own.
        window: only the last `window` tokens, its own included.
        chunk: only tokens of its own chunk of `chunk` tokens.
    """

    causal: bool
    window: int | None
    chunk: int | None

    def mask(self, queries: Tensor, held: Tensor, newest: Tensor) -> Tensor:
        """Which of the tokens that slots hold each query sees.

        Args:
            queries: [t], token index of each query; -1 sees nothing.
            held: [S], token index in each slot; -1 is seen by nothing.
            newest: [], the last valid token of the sequence. Rolled-back tokens may still lie in
                slots; causality hides them, without it this bound does.

        Returns:
            [t, S], true where seen.
        """
        query, key = queries[:, None], held[None, :]
        if self.causal:
            seen = (key >= 0) & (key <= query)
        else:
            seen = (key >= 0) & (key <= newest) & (query >= 0)
        if self.window is not None:
            seen &= query - key < self.window
        if self.chunk is not None:
            seen &= key // self.chunk == query // self.chunk
        return seen


@dataclass(frozen=True)
class _Pool:
    """The pages of one site's keys or values, as one row per slot and head."""

    form: PageFormat
    planes: tuple[Tensor, ...]

    @staticmethod
    def of(form: str, planes: Sequence[Tensor]) -> _Pool:
        return _Pool(page_format(form), tuple(plane.flatten(0, 2) for plane in planes))

    def take(self, rows: Tensor) -> Tensor:
        """Rows `[Hg, S]` -> their values `[Hg, S, D]` in fp32."""
        flat = rows.flatten()
        planes = [p.index_select(0, flat).unflatten(0, rows.shape) for p in self.planes]
        return self.form.decode(planes, torch.float32)


def attend(
    q: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    key_format: str,
    value_format: str,
    table: Tensor,
    index: Tensor | None,
    token_index: Tensor,
    lengths: Tensor,
    tree_mask: Tensor | None,
    causal: bool,
    window: int | None,
    chunk: int | None,
    scale: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """The reference of `effc::attend`; see `effc.kernels.paged.op` for the meaning."""
    _, heads_per_group, page_size = keys[0].shape[:3]
    B, H, T, _ = q.shape
    head_groups = table.shape[1]
    key_pool, value_pool = _Pool.of(key_format, keys), _Pool.of(value_format, values)
    rule = Visibility(causal, window, chunk)
    out = q.new_zeros(B, H, T, page_format(value_format).width(values))
    shape = (B, head_groups, heads_per_group, -1, T)
    grouped, result = q.unflatten(1, shape[1:4]), out.unflatten(1, shape[1:4])
    sink = None if sinks is None else sinks.float().unflatten(0, shape[1:4])
    block = 1 if B * T <= ROWS_ALONE else QUERY_BLOCK
    head = torch.arange(heads_per_group, device=q.device)[:, None] * page_size
    for b in range(B):
        newest = token_index[b].max()
        for g in range(head_groups):
            first, held = _slots(table[b, g], index, heads_per_group, page_size)
            for start in range(0, T, block):
                at = slice(start, start + block)
                seen = rule.mask(token_index[b, at], held, newest)
                if tree_mask is not None:
                    seen &= _tree(tree_mask[b, at], held - lengths[b])
                visible = seen.any(0).nonzero().squeeze(1)
                rows = first[visible] + head
                result[b, g, :, :, at] = _softmax_attention(
                    grouped[b, g, :, :, at].float() * scale,
                    key_pool.take(rows),
                    value_pool.take(rows),
                    None if block == 1 else seen[:, visible],
                    softcap,
                    None if sink is None else sink[g],
                )
    return out


def _slots(
    pages: Tensor, index: Tensor | None, heads: int, page_size: int
) -> tuple[Tensor, Tensor]:
    """The slots that a table row `[N]` names, in order.

    Returns:
        For each of the N * P slots, its row for the first head in a pool `[pages * Hg * P, D]`,
        and the token index it holds, -1 where there is no page or no token.
    """
    inside = torch.arange(page_size, device=pages.device)
    page = pages.long()[:, None]
    if index is None:
        place = torch.arange(pages.numel() * page_size, device=pages.device)
        held = place.view(-1, page_size)
    else:
        held = index[page.squeeze(1).clamp(min=0)]
    first = page * (heads * page_size) + inside
    return first.flatten(), torch.where(page >= 0, held, -1).flatten()


def _tree(mask: Tensor, fresh: Tensor) -> Tensor:
    """Mask `[t, T]` among the new tokens as a mask `[t, S]` over slots; `fresh` [S] is the place
    among the new tokens, outside of 0..T-1 for older tokens, which the tree does not restrict."""
    T = mask.shape[1]
    older = (fresh < 0) | (fresh >= T)
    return older | mask[:, fresh.clamp(0, T - 1)]


def _softmax_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    seen: Tensor | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Scaled queries `[Hg, G, t, D]` over keys `[Hg, S, D]` and values `[Hg, S, D_v]`.

    `seen` [t, S] masks; None sees everything. A query that sees nothing gives zeros.
    """
    heads, group, t, _ = q.shape
    scores = torch.bmm(q.reshape(heads, group * t, -1), k.transpose(1, 2))
    scores = scores.view(heads, group, t, -1)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if seen is not None:
        scores = scores.masked_fill(~seen, -torch.inf)
    if sinks is not None:
        extra = sinks[:, :, None, None].expand(heads, group, t, 1)
        scores = torch.cat([scores, extra], dim=-1)
    weights = scores.softmax(-1)
    if sinks is not None:
        weights = weights[..., :-1]
    if seen is not None:
        weights = weights.masked_fill(~seen, 0.0)
    return torch.bmm(weights.reshape(heads, group * t, -1), v).view(heads, group, t, -1)
