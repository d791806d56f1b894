"""What a weight-quantization method is: a frozen dataclass that packs one weight."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from effc.kernels.packing.group_affine import GroupAffine, PlaneSpecs


class QuantizationMethod(ABC):
    """Base of the methods behind `[[quantize]] method = "<name>"`.

    A method is a frozen dataclass whose fields are its options in the policy, each with a `help`
    text in its metadata. It says in which layout a weight is stored and finds the stored planes;
    which weights it acts on, and the operators that read them, are not its concern.
    Method files import torch only inside functions.
    """

    kind: ClassVar[str] = "quantize"
    name: ClassVar[str]
    summary: ClassVar[str]
    paper: ClassVar[str]

    activations: Literal["source", "int8"] | None
    """Precision in which inputs meet the weights; None leaves it to the target."""

    @abstractmethod
    def layout(self) -> GroupAffine:
        """The packed layout of the weights."""

    @abstractmethod
    def quantize(self, weight: Tensor, name: str = "weight") -> dict[str, Tensor]:
        """The planes that stand for a weight [out, in] or [experts, out, in].

        Args:
            weight: floating point, any strides.
            name: the weight's name, for errors.
        """

    def bytes(self, shape: Sequence[int]) -> int:
        """Bytes of a packed weight of this shape, padding included."""
        return self.layout().bytes(shape)

    def plane_specs(self, shape: Sequence[int]) -> PlaneSpecs:
        """Shape and dtype of each plane of a packed weight of this shape."""
        return self.layout().plane_specs(shape)
