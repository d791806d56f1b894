"""The `GroupAffine` layout in the two forms that ONNX has for packed weights.

    MatMulNBits         codes  uint8 [N, blocks, size * bits / 8]
                        scale  [N, blocks], zero  uint8 [N, bytes], packed as the codes
    DequantizeLinear    codes  (u)int2, 4 or 8 [K, N], scale and zero [blocks, N]

Values are the same bit for bit. Three things may differ from the artifact: codes of a width that
the form does not have are stored with more bits, a group too long for a block is several blocks
with the same scale, and the second form is transposed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from effc.kernels.onnx import OnnxGraph, Value
from effc.kernels.packing.bits import pack_bits, packed_width, unpack_bits

# Blocks of a row that is one group: long enough for the scales not to count.
LONG_BLOCK = 128


@dataclass(frozen=True)
class Blocks:
    """How a packed weight is cut in its ONNX form.

    Attributes:
        source_bits: of a code in the artifact.
        group: columns that share a scale in the artifact.
        bits: of a code here.
        size: columns of a block, a power of two.
        columns: K.
    """

    source_bits: int
    group: int
    bits: int
    size: int
    columns: int

    @staticmethod
    def of(bits: int, group: int, columns: int, *, widths: Sequence[int], largest: int) -> Blocks:
        """The blocks of a weight.

        Args:
            bits: of a code.
            group: columns that share a scale.
            columns: K.
            widths: bits that the form has.
            largest: the longest block that it takes.
        """
        whole = group & (group - 1) == 0 and 16 <= group <= largest
        size = group if whole else _divisor(math.gcd(group, columns), min(largest, LONG_BLOCK))
        return Blocks(bits, group, min(w for w in widths if w >= bits), size, columns)

    @property
    def count(self) -> int:
        """Blocks per row."""
        return math.ceil(self.columns / self.size)

    @property
    def as_stored(self) -> bool:
        """Whether the codes of the artifact are those of this form, byte for byte."""
        return self.bits == self.source_bits and self.size == self.group

    def codes(self, packed: Tensor, symmetric: bool) -> Tensor:
        """Codes [N, blocks * size], one per byte."""
        codes = unpack_bits(packed, self.source_bits)[..., : self.columns]
        lift = 2 ** (self.bits - 1) - 2 ** (self.source_bits - 1) if symmetric else 0
        missing = self.count * self.size - codes.shape[-1]
        # What is padded meets no input; any code will do.
        return F.pad(codes + lift, (0, missing))

    def per_block(self, of_groups: Tensor) -> Tensor:
        """[N, G] -> [N, blocks]."""
        first = torch.arange(self.count) * self.size // self.group
        return of_groups[..., first]

    def zeros(self, packed: Tensor) -> Tensor:
        """Zero points [N, blocks], one per byte."""
        return self.per_block(unpack_bits(packed, self.source_bits))


def _divisor(columns: int, largest: int) -> int:
    """The largest power of two that divides `columns`, between 16 and `largest`."""
    return max(16, min(columns & -columns, largest))


def matmul_nbits(
    g: OnnxGraph,
    blocks: Blocks,
    codes: Value,
    scale: Value,
    zero: Value | None,
    dtype: torch.dtype,
) -> tuple[Value, Value, Value | None]:
    """Codes, scales and zero points for `MatMulNBits`."""
    N, form = int(g.shape(codes)[0]), f"b{blocks.bits}g{blocks.size}"
    packed, scales = known(g, codes), known(g, scale)

    def blob() -> Tensor:
        if blocks.as_stored:
            return packed.reshape(N, blocks.count, -1)
        values = blocks.codes(packed, zero is None)
        return pack_bits(values, blocks.bits).reshape(N, blocks.count, -1)

    shape = (N, blocks.count, blocks.size * blocks.bits // 8)
    stored = g.stored(codes, form, blob, shape, "UINT8")
    return stored, _scales(g, blocks, scale, scales, dtype), packed_zeros(g, blocks, zero, N)


def _scales(
    g: OnnxGraph, blocks: Blocks, scale: Value, values: Tensor, dtype: torch.dtype
) -> Value:
    shape = (values.shape[0], blocks.count)
    form = f"g{blocks.size}.{_name(dtype)}".lower()
    return g.stored(scale, form, lambda: blocks.per_block(values).to(dtype), shape, _name(dtype))


def packed_zeros(g: OnnxGraph, blocks: Blocks, zero: Value | None, rows: int) -> Value | None:
    """Zero points [N, bytes] of a row's blocks behind one another."""
    if zero is None:
        return None
    values = known(g, zero)
    shape = (rows, packed_width(blocks.count, blocks.bits))
    form = f"b{blocks.bits}g{blocks.size}"
    return g.stored(
        zero, form, lambda: pack_bits(blocks.zeros(values), blocks.bits), shape, "UINT8"
    )


def columns_first(
    g: OnnxGraph,
    blocks: Blocks,
    codes: Value,
    scale: Value,
    zero: Value | None,
    dtype: torch.dtype,
) -> tuple[Value, ...]:
    """Codes [K, N], scales and zero points [blocks, N] for `DequantizeLinear`."""
    packed, scales = known(g, codes), known(g, scale)
    N, bits = int(packed.shape[0]), blocks.bits
    name, form = f"{'INT' if zero is None else 'UINT'}{bits}", f"t{bits}g{blocks.size}"

    def transposed(values: Tensor) -> Tensor:
        """Codes [N, n] as the elements of [n, N], with their sign if they have one."""
        signed = values if zero is not None else values ^ 2 ** (bits - 1)
        return pack_bits(signed.t().reshape(-1), bits)

    def weight() -> Tensor:
        return transposed(blocks.codes(packed, zero is None)[:, : blocks.columns])

    planes = [
        g.stored(codes, form, weight, (blocks.columns, N), name),
        g.stored(
            scale,
            f"{form}.{_name(dtype)}".lower(),
            lambda: blocks.per_block(scales).t().to(dtype).contiguous(),
            (blocks.count, N),
            _name(dtype),
        ),
    ]
    if zero is not None:
        zeros = known(g, zero)
        made = g.stored(
            zero, form, lambda: transposed(blocks.zeros(zeros)), (blocks.count, N), name
        )
        planes.append(made)
    return tuple(planes)


def known(g: OnnxGraph, x: Value) -> Tensor:
    """The values of a packed plane."""
    values = g.weight(x)
    assert values is not None, "the planes of a packed weight are constants"
    return values


def _name(dtype: torch.dtype) -> str:
    return {torch.float32: "FLOAT", torch.float16: "FLOAT16"}[dtype]
