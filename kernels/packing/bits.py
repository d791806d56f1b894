"""Unsigned codes of 2, 3, 4 or 8 bits in bytes, in column order from the low bits of a byte up.

    8 bits    one code per byte
    4 bits    two codes per byte, the low nibble is the even column
    2 bits    four codes per byte
    3 bits    two parts per row: the codes' low 2 bits packed as above, then their high bits,
              eight per byte

Codes stored this way never cross a byte, so that a kernel reads any aligned stretch of columns of
a row with one plain load (3 bits: two).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def packed_width(columns: int, bits: int) -> int:
    """Bytes that hold `columns` codes of `bits` bits, whole bytes of whole codes per row."""
    together = math.lcm(8, bits) // bits
    return -(-columns // together) * together * bits // 8


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Pack uint8 codes [..., n] below 2^bits into bytes [..., packed_width(n, bits)].

    A row that does not fill its bytes ends in zero bits.
    """
    if bits == 8:
        return codes
    columns = packed_width(codes.shape[-1], bits) * 8 // bits
    codes = F.pad(codes, (0, columns - codes.shape[-1]))
    if bits == 3:
        return torch.cat([_pack(codes & 3, 2), _pack(codes >> 2, 1)], -1)
    return _pack(codes, bits)


def unpack_bits(packed: Tensor, bits: int) -> Tensor:
    """Unpack bytes [..., n] into uint8 codes [..., n * 8 / bits], in column order."""
    if bits == 8:
        return packed
    if bits == 3:
        low, high = packed.tensor_split((packed.shape[-1] * 2 // 3,), -1)
        return _unpack(low, 2) | _unpack(high, 1) << 2
    return _unpack(packed, bits)


def _pack(codes: Tensor, bits: int) -> Tensor:
    """Whole bytes of codes whose width divides 8."""
    packed = codes[..., :: 8 // bits].clone(memory_format=torch.contiguous_format)
    for place in range(1, 8 // bits):
        packed |= codes[..., place :: 8 // bits] << place * bits
    return packed


def _unpack(packed: Tensor, bits: int) -> Tensor:
    # A byte hl widened to 16 bits and spread to 0h0l is, in little-endian memory, the pair
    # (l, h): three passes over contiguous integers, where writing to strided halves costs five
    # times as much. Each round halves the codes, until they are as narrow as they were.
    for half in (4, 2, 1):
        if half < bits:
            break
        mask = (1 << half) - 1
        wide = packed.to(torch.int16).contiguous()
        packed = ((wide | (wide << 8 - half)) & (mask << 8 | mask)).view(torch.uint8)
    return packed
