"""How keys and values are stored in a page.

A page format turns values `[..., D]` into one or several *planes*, tensors `[..., *trailing]` that
share the leading sizes, and back. Planes are what the cache really holds: their bytes are the
bytes of the cache. A new format is one more frozen dataclass and one more row in `FORMATS`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from effc.diagnostics import InternalError, did_you_mean


@dataclass(frozen=True)
class Plane:
    """One tensor of a page format.

    Attributes:
        suffix: what its state input adds to the site's name, e.g. "scale" in `k0_scale`; empty for
            the only plane of a plain format.
        dtype: element type.
        trailing: sizes after the token dimension; "D" stands for the width of a key or value.
    """

    suffix: str
    dtype: torch.dtype
    trailing: tuple[int | Literal["D"], ...]

    def shape(self, width: int) -> tuple[int, ...]:
        """The trailing sizes for keys or values of `width` elements."""
        return tuple(width if size == "D" else size for size in self.trailing)


@dataclass(frozen=True)
class PageFormat(ABC):
    """A way to store the keys or values of a token.

    Attributes:
        name: what `CacheSite.key_format` and the operators call it.
        planes: the tensors it consists of.
    """

    name: str
    planes: tuple[Plane, ...]

    @abstractmethod
    def encode(self, values: Tensor) -> list[Tensor]:
        """Values `[..., D]` as one tensor `[..., *trailing]` per plane."""

    @abstractmethod
    def decode(self, planes: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        """The values `[..., D]` of encoded planes, in `dtype`."""

    def width(self, planes: Sequence[Tensor]) -> int:
        """D, read off the planes."""
        return planes[0].shape[-1]

    def input_names(self, base: str) -> list[str]:
        """The state inputs of a site's planes: `k0`, or `k0_codes` and `k0_scale`."""
        return [f"{base}_{plane.suffix}" if plane.suffix else base for plane in self.planes]

    def bytes_per_token(self, width: int) -> int:
        """Bytes of one head's key or value of `width` elements."""
        return sum(math.prod(p.shape(width)) * p.dtype.itemsize for p in self.planes)


@dataclass(frozen=True)
class PlainFormat(PageFormat):
    """The elements themselves, rounded to the type of the single plane."""

    def encode(self, values: Tensor) -> list[Tensor]:
        return [values.to(self.planes[0].dtype)]

    def decode(self, planes: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        return planes[0].to(dtype)


@dataclass(frozen=True)
class Int8Format(PageFormat):
    """8-bit codes with one fp16 scale per token and head.

    Symmetric: scale = absmax / 127, codes = round(values / scale) to nearest even, in -127..127.
    The codes are taken with the scale as it is stored, so an element is off by half a scale at
    most while the scale is a normal fp16 number (absmax between 0.008 and 8.3e6).
    """

    def encode(self, values: Tensor) -> list[Tensor]:
        exact = values.float()
        largest = torch.finfo(torch.float16).max
        scale = (exact.abs().amax(-1) / 127).clamp(max=largest).to(torch.float16)
        # A token of zeros, or one too small for fp16, has scale 0 and codes 0.
        step = torch.where(scale > 0, scale.float(), torch.inf).unsqueeze(-1)
        codes = (exact / step).round().clamp(-127, 127).to(torch.int8)
        return [codes, scale]

    def decode(self, planes: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        codes, scale = planes
        return (codes.float() * scale.float().unsqueeze(-1)).to(dtype)


def _plain(name: str, dtype: torch.dtype) -> PlainFormat:
    return PlainFormat(name, (Plane("", dtype, ("D",)),))


FORMATS: dict[str, PageFormat] = {
    form.name: form
    for form in (
        _plain("fp32", torch.float32),
        _plain("fp16", torch.float16),
        _plain("bf16", torch.bfloat16),
        Int8Format("int8", (Plane("codes", torch.int8, ("D",)), Plane("scale", torch.float16, ()))),
    )
}


def page_format(name: str) -> PageFormat:
    """The format called `name`.

    Raises:
        InternalError: no such format; a program that passed the verifier never asks for one.
    """
    if name not in FORMATS:
        raise InternalError(
            "E0901", f"unknown page format {name!r}", help=did_you_mean(name, FORMATS)
        )
    return FORMATS[name]


def plain_format(dtype: torch.dtype) -> str:
    """The name of the format that stores elements of `dtype` as they are.

    Raises:
        InternalError: there is no plain format of this type.
    """
    for form in FORMATS.values():
        if isinstance(form, PlainFormat) and form.planes[0].dtype == dtype:
            return form.name
    raise InternalError("E0901", f"no plain page format stores {dtype}")
