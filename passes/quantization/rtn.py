"""Round to nearest: every weight becomes the nearest of the values its group can take.

    w [out, in]  ->  groups of g columns  ->  q = round(w / s) + z,  s and z from the group's range

No data is needed, and no weight depends on another group. The baseline that methods with
calibration data (GPTQ, AWQ) are measured against. The layout and its range, scales and rounding
are those of `effc.kernels.packing.group_affine.GroupAffine`; |error| <= |s| / 2 per weight within
the range of its group.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from effc.passes.quantization.method import QuantizationMethod
from effc.spec.options import OptionError

if TYPE_CHECKING:
    from torch import Tensor

    from effc.kernels.packing.group_affine import GroupAffine

MIN_GROUP = 16


@dataclass(frozen=True)
class Rtn(QuantizationMethod):
    """Weight-only rounding to 8, 4, 3 or 2 bits, in groups along the input features."""

    name: ClassVar[str] = "rtn"
    summary: ClassVar[str] = "round weights to the nearest of 2^bits values per group"
    paper: ClassVar[str] = "https://arxiv.org/abs/2106.08295"

    bits: Literal[8, 4, 3, 2] = field(default=4, metadata={"help": "bits per weight: 8, 4, 3 or 2"})
    group: int | Literal["row"] = field(
        default=32,
        metadata={"help": 'columns that share a scale, a power of two from 16 on, or "row"'},
    )
    symmetric: bool = field(
        default=True, metadata={"help": "a scale per group only; false adds a zero point"}
    )
    activations: Literal["source", "int8"] | None = field(
        default=None,
        metadata={"help": '"source" or "int8": precision of the inputs; unset, the target decides'},
    )

    def __post_init__(self) -> None:
        # Types are checked exactly: True is not 1, and 4.0 is not 4.
        if type(self.bits) is not int or self.bits not in (8, 4, 3, 2):
            raise OptionError("bits", "8, 4, 3 or 2", self.bits, self.name)
        if self.group != "row" and not _is_group(self.group):
            expected = f'a power of two >= {MIN_GROUP}, or "row"'
            raise OptionError("group", expected, self.group, self.name)
        if type(self.symmetric) is not bool:
            raise OptionError("symmetric", "true or false", self.symmetric, self.name)
        if self.activations not in ("source", "int8", None):
            raise OptionError("activations", '"source" or "int8"', self.activations, self.name)

    def layout(self) -> GroupAffine:
        """Groups with a scale and, unless symmetric, a zero point."""
        from effc.kernels.packing.group_affine import GroupAffine

        return GroupAffine(self.bits, None if self.group == "row" else self.group, self.symmetric)

    def quantize(self, weight: Tensor, name: str = "weight") -> dict[str, Tensor]:
        """Round a weight [out, in] or [experts, out, in] to planes codes, scale[, zero]."""
        return self.layout().pack(weight, name)


def _is_group(value: object) -> bool:
    return type(value) is int and value >= MIN_GROUP and value & (value - 1) == 0
