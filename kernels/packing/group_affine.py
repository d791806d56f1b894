"""Group-affine integer weights: the one definition of the packed layout.

A weight [.., out, in] is cut along `in` into groups of g columns; each group has a scale s and,
unless symmetric, a zero point z, and each value a code q of b bits:

    symmetric     value = (q - 2^(b-1)) * s        s may be negative
    asymmetric    value = (q - z) * s              0 <= z < 2^b, so 0 is always a value

Three planes hold it (G = groups per row):

    codes  uint8   [.., out, bytes]   b bits per column, as `effc.kernels.packing.bits` lays out
    scale  float16 [.., out, G]       or float32
    zero   uint8   [.., out, bytes]   b bits per group, packed as the codes; asymmetric only

`in` is padded to whole groups (one group per row: to whole bytes); `pack` writes the code of zero
there, and nobody reads it. The cost per weight is b + 16/g bits, + b/g with zero points. Every
value has at most 19 significant bits and is exact in float32. Scales of float32, + 16/g bits, are
for weights that others have quantized: nothing is rounded on import, and a value is the product
rounded to float32 once.

The range. Symmetric groups use all 2^b codes: s = m / -2^(b-1) for the value m of largest
magnitude, so that m gets the code 0, whichever its sign (the rule of ggml's Q4_0; a balanced
range of 2^b - 1 codes has coarser steps). Asymmetric groups span
[min(w, 0), max(w, 0)] with 2^b - 1 steps. Scales are rounded to their type *away from zero*, so
that the range always covers the group, subnormal scales included, and codes are computed with the
rounded scale, nearest even. Hence |value - w| <= |s| / 2, but for symmetric values of the
opposite sign to m beyond (2^(b-1) - 1/2) |s|, which are clamped: there <= |s|.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import EllipsisType

import torch
from torch import Tensor

from effc.diagnostics import KernelError, PassError
from effc.kernels.packing.bits import pack_bits, packed_width, unpack_bits
from effc.kernels.threads import one_thread

BITS = (8, 4, 3, 2)
MIN_GROUP = 16
SCALES = (torch.float16, torch.float32)

# Values handled at a time: 1 MiB of float32, which stays in the cache of one core.
BLOCK_VALUES = 1 << 18

PlaneSpecs = dict[str, tuple[tuple[int, ...], torch.dtype]]
Rows = slice | Tensor | tuple[int, slice] | EllipsisType


@dataclass(frozen=True)
class GroupAffine:
    """The layout of one packed weight.

    Attributes:
        bits: 8, 4, 3 or 2.
        group: columns per group, a power of two >= 16; None makes each row one group.
        symmetric: whether groups have a scale only, without a zero point.
        scales: float16 or float32.
    """

    bits: int
    group: int | None
    symmetric: bool
    scales: torch.dtype = torch.float16

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise KernelError("E0503", f"bits = {self.bits}: packed weights have 8, 4, 3 or 2 bits")
        group = self.group
        if group is not None and (group < MIN_GROUP or group & (group - 1)):
            raise KernelError(
                "E0503",
                f"group = {group}: a group has a power of two of columns, {MIN_GROUP} or more",
            )
        if self.scales not in SCALES:
            raise KernelError("E0503", f"scales of {self.scales}; they are float16 or float32")

    def groups(self, in_features: int) -> int:
        """Groups per row."""
        return 1 if self.group is None else math.ceil(in_features / self.group)

    def columns(self, in_features: int) -> int:
        """Stored columns per row, padding included."""
        if self.group is None:
            return packed_width(in_features, self.bits) * 8 // self.bits
        return self.groups(in_features) * self.group

    def plane_specs(self, shape: Sequence[int]) -> PlaneSpecs:
        """Shape and dtype of every plane of a weight of this shape, without computing any.

        Raises:
            PassError: E0407, when the shape is not [out, in] or [experts, out, in].
        """
        if len(shape) not in (2, 3) or shape[-1] == 0:
            raise PassError(
                "E0407",
                f"a weight of shape {list(shape)} cannot be packed in groups",
                help="quantize matrices [out, in] and expert stacks [experts, out, in]",
            )
        rows, in_features = tuple(shape[:-1]), shape[-1]
        groups = self.groups(in_features)
        code_bytes = packed_width(self.columns(in_features), self.bits)
        specs: PlaneSpecs = {
            "codes": ((*rows, code_bytes), torch.uint8),
            "scale": ((*rows, groups), self.scales),
        }
        if not self.symmetric:
            specs["zero"] = ((*rows, packed_width(groups, self.bits)), torch.uint8)
        return specs

    def bytes(self, shape: Sequence[int]) -> int:
        """Bytes of all planes of a weight of this shape, padding included."""
        specs = self.plane_specs(shape).values()
        return sum(math.prod(plane) * dtype.itemsize for plane, dtype in specs)

    def pack(self, weight: Tensor, name: str = "weight") -> dict[str, Tensor]:
        """Quantize a weight to the nearest values of the layout.

        Works block by block: beside the planes it holds a few times `BLOCK_VALUES` float32.

        Args:
            weight: [out, in] or [experts, out, in], any floating dtype, any strides.
            name: the weight's name, for the error.

        Returns:
            The planes, as `plane_specs(weight.shape)` describes them.

        Raises:
            PassError: E0407, when the shape does not fit, a value is not finite, or a scale
                exceeds its type.
        """
        planes = {
            plane: torch.empty(shape, dtype=dtype, device=weight.device)
            for plane, (shape, dtype) in self.plane_specs(weight.shape).items()
        }
        with one_thread():
            for index in range(weight.shape[0]) if weight.ndim == 3 else (...,):
                matrix = weight[index]
                for rows in row_blocks(*matrix.shape):
                    place = f"{name}, rows {rows.start} to {rows.stop - 1}"
                    place += "" if index is ... else f" of expert {index}"
                    for plane, values in self._pack_block(matrix[rows], place).items():
                        planes[plane][index][rows] = values
        return planes

    def _pack_block(self, weight: Tensor, place: str) -> dict[str, Tensor]:
        in_features = weight.shape[-1]
        values = weight.new_zeros(len(weight), self.columns(in_features), dtype=torch.float32)
        values[:, :in_features] = weight
        values = values.unflatten(-1, (self.groups(in_features), -1))  # [rows, G, g]
        scale, zero = self._grid(values, place)
        step = _divisor(scale).unsqueeze(-1)
        codes = (values / step).round_().add_(zero.unsqueeze(-1)).clamp_(0, 2**self.bits - 1)
        planes = {"codes": pack_bits(codes.flatten(-2).to(torch.uint8), self.bits), "scale": scale}
        if not self.symmetric:
            planes["zero"] = pack_bits(zero.to(torch.uint8), self.bits)
        return planes

    def _grid(self, values: Tensor, place: str) -> tuple[Tensor, Tensor]:
        """Scale and code of zero (float32), both [rows, G], of values [rows, G, g]."""
        low, high = values.amin(-1), values.amax(-1)
        if not (low.isfinite() & high.isfinite()).all():
            raise PassError(
                "E0407",
                "the weight holds values that are not finite (NaN or infinity)",
                where=place,
                help="repair the checkpoint, or leave this weight out of the rule",
            )
        if self.symmetric:
            exact = torch.where(high > -low, high, low) / -(2 ** (self.bits - 1))
        else:
            low, high = low.clamp(max=0), high.clamp(min=0)
            exact = (high - low) / (2**self.bits - 1)
        scale = _away_from_zero(exact, self.scales)
        if scale.isinf().any():
            type_name = str(self.scales).removeprefix("torch.")
            raise PassError(
                "E0407",
                f"a scale of {exact.abs().max().item():.4g} exceeds {type_name}, whose largest "
                f"value is {torch.finfo(self.scales).max:.5g}",
                where=place,
                help="use 8 bits or smaller groups, or leave this weight out of the rule",
            )
        if self.symmetric:
            return scale, torch.full_like(exact, 2 ** (self.bits - 1))
        return scale, (-low / _divisor(scale)).round_().clamp_(0, 2**self.bits - 1)

    def unpack(
        self, planes: Mapping[str, Tensor], in_features: int, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """The weight [.., out, in] that the planes stand for.

        Raises:
            KernelError: E0503, when the planes do not have the layout's shapes and dtypes.
        """
        self.check(planes, in_features)
        codes, scale, zero = planes["codes"], planes["scale"], planes.get("zero")
        weight = torch.empty(*codes.shape[:-1], in_features, dtype=dtype, device=codes.device)
        for index in range(codes.shape[0]) if codes.ndim == 3 else (...,):
            for block in row_blocks(codes.shape[-2], in_features):
                rows = block if index is ... else (index, block)
                weight[rows] = dequantize(codes, scale, zero, self.bits, in_features, rows)
        return weight

    def check(self, planes: Mapping[str, Tensor], in_features: int) -> None:
        """Refuse planes that do not have the layout's shapes and dtypes.

        Raises:
            KernelError: E0503, naming the plane, what it is and what it should be.
        """
        expected = self.plane_specs((*planes["codes"].shape[:-1], in_features))
        found = {name: (tuple(plane.shape), plane.dtype) for name, plane in planes.items()}
        for name in expected | found:
            if expected.get(name) != found.get(name):
                raise KernelError(
                    "E0503",
                    f"plane {name!r} is {found.get(name)}, not {expected.get(name)}",
                    where=f"{self} over {in_features} columns",
                )


def check_planes(
    codes: Tensor, scale: Tensor, zero: Tensor | None, bits: int, group: int, in_features: int
) -> None:
    """Refuse planes that do not fit an operator's `bits`, `group` and `in_features`.

    Args:
        group: columns that share a scale; `in_features` when a row is one group.

    Raises:
        KernelError: E0503, naming the plane, what it is and what it should be.
    """
    scales = scale.dtype if scale.dtype in SCALES else torch.float16
    layout = GroupAffine(bits, None if group == in_features else group, zero is None, scales)
    planes = {"codes": codes, "scale": scale}
    layout.check(planes if zero is None else planes | {"zero": zero}, in_features)


def dequantize(
    codes: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    bits: int,
    in_features: int,
    rows: Rows = ...,
) -> Tensor:
    """Turn packed rows into float32 values: exactly with float16 scales, rounded once with float32.

    Args:
        codes: uint8 [.., bytes].
        scale: float16 or float32 [.., G].
        zero: uint8 [.., bytes], or None when symmetric.
        rows: which rows of the planes; all when left out.

    Returns:
        [.., in_features] float32; a view that leaves out the padding.
    """
    codes, scale = codes[rows], scale[rows]
    groups = scale.shape[-1]
    columns = codes.shape[-1] * 8 // bits
    values = unpack_bits(codes, bits).to(torch.float32).unflatten(-1, (groups, columns // groups))
    if zero is None:
        values -= 2 ** (bits - 1)
    else:
        values -= unpack_bits(zero[rows], bits)[..., :groups].unsqueeze(-1)
    values *= scale.to(torch.float32).unsqueeze(-1)
    return values.flatten(-2)[..., :in_features]


def row_blocks(rows: int, columns: int) -> Iterator[slice]:
    """Cut rows of so many columns into slices of about `BLOCK_VALUES` values."""
    step = max(1, BLOCK_VALUES // max(1, columns))
    for start in range(0, rows, step):
        yield slice(start, min(rows, start + step))


def _divisor(scale: Tensor) -> Tensor:
    """The scale in float32; 1 for an all-zero group, whose values are then the code of zero."""
    return torch.where(scale == 0, 1.0, scale.to(torch.float32))


def _away_from_zero(values: Tensor, scales: torch.dtype) -> Tensor:
    """The scales of least magnitude that are not nearer to zero; beyond their type, infinity."""
    if scales == values.dtype:
        return values + 0.0  # turns -0 into +0
    nearest = (values + 0.0).to(torch.float16)
    short = nearest.to(torch.float32).abs() < values.abs()
    # Sign and magnitude are apart in a float's pattern: + 1 is one step away from zero.
    return (nearest.view(torch.int16) + short.to(torch.int16)).view(torch.float16)
