"""A method table like the real one, so that the language is tested without the methods."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import pytest

from effc.spec.schema import MethodTable, OptionError, method_info_from_dataclass


@dataclass(frozen=True)
class RoundToNearest:
    """Round to nearest, one scale per group."""

    name: ClassVar[str] = "rtn"
    kind: ClassVar[str] = "quantize"
    paper: ClassVar[str] = "https://example.org/rtn"

    bits: Literal[8, 4] = field(default=4, metadata={"help": "bits per weight"})
    group: int | Literal["row"] = 32
    symmetric: bool = True
    activations: Literal["source", "int8"] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.group, int) and (self.group < 16 or self.group & (self.group - 1)):
            raise OptionError("group", 'a power of two >= 16 or "row"', self.group)


@dataclass(frozen=True)
class Calibrated:
    """A second method, with a required and a floating-point option."""

    name: ClassVar[str] = "calibrated"
    kind: ClassVar[str] = "quantize"

    samples: int
    damping: float = 0.01


@pytest.fixture(scope="session")
def methods() -> MethodTable:
    infos = [method_info_from_dataclass(cls) for cls in (RoundToNearest, Calibrated)]
    return {"quantize": {info.name: info for info in infos}}
