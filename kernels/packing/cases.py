"""Packed weights for the cases of the operators that read them, and what they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from effc.kernels.packing.group_affine import GroupAffine

LAYOUTS = {
    "4-bit symmetric groups of 32": GroupAffine(4, 32, True),
    "4-bit asymmetric groups of 16": GroupAffine(4, 16, False),
    "4-bit asymmetric rows": GroupAffine(4, None, False),
    "8-bit symmetric rows": GroupAffine(8, None, True),
    "8-bit asymmetric groups of 64": GroupAffine(8, 64, False),
    "2-bit symmetric groups of 16": GroupAffine(2, 16, True),
    "2-bit asymmetric rows": GroupAffine(2, None, False),
    "3-bit asymmetric groups of 32": GroupAffine(3, 32, False),
    "3-bit symmetric rows": GroupAffine(3, None, True),
    "4-bit symmetric groups of 32, float32 scales": GroupAffine(4, 32, True, torch.float32),
    "8-bit asymmetric rows, float32 scales": GroupAffine(8, None, False, torch.float32),
}


def random_tensor(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normal float32 values, the same at every call."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def packed_arguments(layout: GroupAffine, *shape: int) -> dict[str, Any]:
    """Planes and layout arguments of a random packed weight [.., out, in]."""
    planes = layout.pack(random_tensor(*shape, seed=1))
    return {
        "codes": planes["codes"],
        "scale": planes["scale"],
        "zero": planes.get("zero"),
        "bits": layout.bits,
        "group": layout.group or shape[-1],
    }


def spread_bits(plane: np.ndarray, bits: int) -> np.ndarray:
    """Numbers of so many bits, one after the other from the lowest bit of the first byte on."""
    single = np.unpackbits(plane, axis=-1, bitorder="little").astype(np.int64)
    return single.reshape(*plane.shape[:-1], -1, bits) @ (1 << np.arange(bits))


def dequantized(
    codes: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor | None, bits: int, columns: int
) -> np.ndarray:
    """The weight [.., out, columns] in float64: a second reading of the layout, in numpy."""

    def spread(plane: torch.Tensor) -> np.ndarray:
        if bits != 3:
            return spread_bits(plane.numpy(), bits)
        low, high = np.split(plane.numpy(), [plane.shape[-1] * 2 // 3], axis=-1)
        return spread_bits(low, 2) + 4 * spread_bits(high, 1)

    levels = spread(codes)
    groups = scale.shape[-1]
    group_of = np.arange(columns) // (levels.shape[-1] // groups)
    origin = np.full(scale.shape, 2 ** (bits - 1)) if zero is None else spread(zero)
    steps = scale.numpy().astype(np.float64)
    return (levels[..., :columns] - origin[..., group_of]) * steps[..., group_of]
