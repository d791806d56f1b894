"""Unsigned codes of 4 or 8 bits in bytes: the low nibble holds the even column."""

from __future__ import annotations

import torch
from torch import Tensor

LOW_NIBBLE = 0x0F


def packed_width(columns: int, bits: int) -> int:
    """Bytes that hold `columns` codes of `bits` bits, whole bytes per row."""
    return (columns * bits + 7) // 8


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Pack uint8 codes [..., n] below 2^bits into bytes [..., packed_width(n, bits)].

    A 4-bit row of odd length ends in a zero nibble.
    """
    if bits == 8:
        return codes
    even, odd = codes[..., 0::2], codes[..., 1::2]
    packed = even.clone(memory_format=torch.contiguous_format)
    packed[..., : odd.shape[-1]] |= odd << 4
    return packed


def unpack_bits(packed: Tensor, bits: int) -> Tensor:
    """Unpack bytes [..., n] into uint8 codes [..., n * 8 / bits], in column order."""
    if bits == 8:
        return packed
    # A byte hl widened to 16 bits and spread to 0h0l is, in little-endian memory, the pair
    # (l, h): three passes over contiguous integers, where writing to strided halves costs five
    # times as much.
    wide = packed.to(torch.int16).contiguous()
    spread = (wide | (wide << 4)) & (LOW_NIBBLE << 8 | LOW_NIBBLE)
    return spread.view(torch.uint8)
