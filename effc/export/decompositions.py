"""Every `effc::` operator in terms of `aten`, for formats that have no operators of ours.

Same meaning as the references, other loops: a reference gathers exactly what it needs, row by row,
which depends on values; here shapes depend on shapes only. Sums therefore may differ in their last
bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import effc.ops  # noqa: F401  (the operators must be registered)
from effc.kernels.attention.op import reference as attention
from effc.kernels.attention.op import softmax_with_sinks, visible
from effc.kernels.gated_activation.op import reference as gated_activation
from effc.kernels.grouped_linear.rows import compute_dtype
from effc.kernels.paged.formats import page_format
from effc.kernels.quantized_linear.op import met_by_weight
from effc.kernels.rms_norm.op import reference as rms_norm
from effc.kernels.rope.op import reference as rope


def token_index(lengths: Tensor, new_len: Tensor, ids: Tensor) -> Tensor:
    """`effc::token_index`."""
    column = torch.arange(ids.shape[1], device=ids.device)
    return torch.where(column < new_len[:, None], lengths[:, None] + column, -1)


def select_rows(x: Tensor, rows: Tensor) -> Tensor:
    """`effc::select_rows`."""
    return x.gather(1, rows[:, :, None].expand(-1, -1, x.shape[2]))


def cache_write(
    planes: Sequence[Tensor], values: Tensor, slots: Tensor, format: str
) -> list[Tensor]:
    """`effc::cache_write`: tokens without a slot go to an extra row that is cut off again."""
    pages, _, page_size = planes[0].shape[:3]
    total = pages * page_size
    by_group = values.unflatten(1, (slots.shape[1], -1)).movedim(3, 2)  # [B, Gh, T, Hg, D]
    target = torch.where(slots >= 0, slots, total).flatten()
    results = []
    for plane, new in zip(planes, page_format(format).encode(by_group), strict=True):
        rows = plane.movedim(2, 1).flatten(0, 1)  # [pages * P, Hg, ...]
        extended = torch.cat([rows, torch.zeros_like(rows[:1])])
        updated = extended.index_put([target], new.flatten(0, 2))[:total]
        results.append(updated.unflatten(0, (pages, page_size)).movedim(1, 2))
    return results


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
    """`effc::attend` over all slots that the table names, with a mask; one head group."""
    H, T = q.shape[1:3]
    k, v = (_gather(f, p, table) for f, p in ((key_format, keys), (value_format, values)))
    heads, page_size = keys[0].shape[1], keys[0].shape[2]
    held = _held(table, index, page_size)  # [B, S]
    query = token_index[:, :, None]
    seen = visible(query, held[:, None, :], causal, window, chunk)
    seen = seen & (held <= token_index.amax(1, keepdim=True))[:, None, :]
    if tree_mask is not None:
        fresh = (held - lengths[:, None])[:, None, :].expand(-1, T, -1)
        inside = tree_mask.gather(2, fresh.clamp(0, T - 1))
        seen = seen & ((fresh < 0) | (fresh >= T) | inside)
    grouped = (q.float() * scale).unflatten(1, (heads, H // heads)).flatten(2, 3)
    scores = (grouped @ k.transpose(2, 3)).unflatten(2, (H // heads, T)).flatten(1, 2)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    masked = scores.masked_fill(~seen[:, None], -torch.inf)
    weights = softmax_with_sinks(masked, sinks)
    out = weights.unflatten(1, (heads, H // heads)).flatten(2, 3) @ v
    return out.unflatten(2, (H // heads, T)).flatten(1, 2).to(q.dtype)


def _gather(form: str, planes: Sequence[Tensor], table: Tensor) -> Tensor:
    """The values `[B, Hg, S, D]` of the pages `[B, 1, N]` of each sequence, in fp32."""
    B, N = table.shape[0], table.shape[2]
    pages = table.clamp(min=0).flatten().long()
    taken = [
        plane.index_select(0, pages).unflatten(0, (B, N)).movedim(1, 2).flatten(2, 3)
        for plane in planes
    ]
    return page_format(form).decode(taken, torch.float32)


def _held(table: Tensor, index: Tensor | None, page_size: int) -> Tensor:
    """The token index [B, S] in each slot of a sequence; -1 for none."""
    B, N = table.shape[0], table.shape[2]
    pages = table[:, 0].long()
    if index is None:
        held = torch.arange(N * page_size, device=table.device).view(1, N, page_size)
    else:
        held = index.index_select(0, pages.clamp(min=0).flatten()).long().view(B, N, page_size)
    return torch.where(pages[:, :, None] >= 0, held, -1).flatten(1)


def quantized_linear(
    x: Tensor,
    codes: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    bias: Tensor | None,
    bits: int,
    group: int,
    in_features: int,
    activations: str,
) -> Tensor:
    """`effc::quantized_linear`, with the whole weight dequantized."""
    rows = met_by_weight(x.reshape(-1, in_features), group, activations)
    weight = _dequantized(codes, scale, zero, bits, in_features).to(rows.dtype)
    result = F.linear(rows, weight)
    if bias is not None:
        result = result + bias
    return result.to(x.dtype).reshape(*x.shape[:-1], codes.shape[0])


def quantized_embedding(
    ids: Tensor,
    codes: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    bits: int,
    group: int,
    width: int,
    dtype: torch.dtype,
) -> Tensor:
    """`effc::quantized_embedding`: the rows asked for."""
    rows = ids.flatten()
    zeros = None if zero is None else zero.index_select(0, rows)
    codes, scale = codes.index_select(0, rows), scale.index_select(0, rows)
    values = _dequantized(codes, scale, zeros, bits, width)
    return values.to(dtype).reshape(*ids.shape, width)


def grouped_linear(
    x: Tensor, weight: Tensor, expert_ids: Tensor, bias: Tensor | None, transposed: bool
) -> Tensor:
    """`effc::grouped_linear`: every expert for every row, then the right one."""
    matrices = weight if transposed else weight.transpose(1, 2)  # [E, in, out]
    rows = x.to(compute_dtype(x))
    return _chosen(rows, matrices.to(rows.dtype), expert_ids, bias).to(x.dtype)


def quantized_grouped_linear(
    x: Tensor,
    codes: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    expert_ids: Tensor,
    bias: Tensor | None,
    bits: int,
    group: int,
    in_features: int,
    activations: str,
) -> Tensor:
    """`effc::quantized_grouped_linear`, as `grouped_linear` with all weights dequantized."""
    rows = met_by_weight(x, group, activations)
    weight = _dequantized(codes, scale, zero, bits, in_features).to(rows.dtype)
    return _chosen(rows, weight.transpose(1, 2), expert_ids, bias).to(x.dtype)


def _chosen(rows: Tensor, matrices: Tensor, expert_ids: Tensor, bias: Tensor | None) -> Tensor:
    """Rows [S, in] times matrices [E, in, out], the product of each row's expert [S, out]."""
    everything = rows.unsqueeze(0) @ matrices  # [E, S, out]
    if bias is not None:
        everything = everything + bias[:, None]
    at = expert_ids[None, :, None].expand(1, -1, everything.shape[2])
    return everything.gather(0, at)[0]


def _dequantized(
    codes: Tensor, scale: Tensor, zero: Tensor | None, bits: int, in_features: int
) -> Tensor:
    """The values [.., in] of packed rows, as `effc.kernels.packing.group_affine.dequantize`."""
    groups = scale.shape[-1]
    values = _unpacked(codes, bits).unflatten(-1, (groups, -1)).float()
    if zero is None:
        values = values - 2 ** (bits - 1)
    else:
        values = values - _unpacked(zero, bits)[..., :groups].unsqueeze(-1).float()
    return (values * scale.float().unsqueeze(-1)).flatten(-2)[..., :in_features]


def _unpacked(packed: Tensor, bits: int) -> Tensor:
    """Codes in the layout of `effc.kernels.packing.bits`, as int32, by shifts and masks."""
    if bits == 3:
        low, high = packed.tensor_split((packed.shape[-1] * 2 // 3,), -1)
        return _unpacked(low, 2) + 4 * _unpacked(high, 1)
    wide = packed.to(torch.int32)
    if bits == 8:
        return wide
    shifts = torch.arange(0, 8, bits, dtype=torch.int32, device=packed.device)
    parts = torch.bitwise_right_shift(wide.unsqueeze(-1), shifts)
    return torch.bitwise_and(parts, 2**bits - 1).flatten(-2)


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Operator -> its decomposition, in the form of `ExportedProgram.run_decompositions`."""
    functions = (
        attend,
        attention,
        cache_write,
        gated_activation,
        grouped_linear,
        quantized_embedding,
        quantized_grouped_linear,
        quantized_linear,
        rms_norm,
        rope,
        select_rows,
        token_index,
    )
    names = {attention: "attention", gated_activation: "gated_activation"}
    names |= {rms_norm: "rms_norm", rope: "rope"}
    return {
        getattr(torch.ops.effc, names.get(f, f.__name__)).default: f  # type: ignore[call-overload]
        for f in functions
    }
