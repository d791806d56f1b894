"""Keys and values in 8 bits, one scale per token and head.

    k [B, H_kv, T, D]  ->  codes = round(k / s) in -127..127,  s = max |k| / 127 over D

A head of D elements takes D + 2 bytes instead of 4 D or 2 D. Rounding is to nearest, with the
scale as it is stored (fp16), so |error| <= s / 2 per element; nothing is calibrated. The layout is
that of `effc.kernels.paged.formats.Int8Format`.

Sheng et al., "FlexGen", 2023, section 5, quantizes caches in groups of 64 elements at 4 bits; here
a group is one head of one token, at 8 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from effc.passes.kv_compression.method import StoreMethod


@dataclass(frozen=True)
class Int8(StoreMethod):
    """Round to nearest in the cache; the baseline that rotated codebooks are measured against."""

    name: ClassVar[str] = "int8"
    summary: ClassVar[str] = "store keys and values in 8 bits, one scale per token and head"
    paper: ClassVar[str] = "https://arxiv.org/abs/2303.06865"

    def formats(self) -> tuple[str, str]:
        """Both in 8 bits."""
        return "int8", "int8"
