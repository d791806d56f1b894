"""A method table like the real one, so that the language is tested without the methods."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import pytest

from effc.spec.schema import (
    MethodInfo,
    MethodTable,
    OptionError,
    Quantity,
    amount,
    method_info_from_dataclass,
)


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


@dataclass(frozen=True)
class Window:
    """Keep the first and the last tokens."""

    name: ClassVar[str] = "window"
    kind: ClassVar[str] = "kv"

    budget: Quantity = field(metadata={"dimension": "tokens"})
    sinks: int = 4


@dataclass(frozen=True)
class Snap:
    """Keep what the last queries look at."""

    name: ClassVar[str] = "snap"
    kind: ClassVar[str] = "kv"

    budget: Quantity | Literal["all"] = amount("25% of tokens", "tokens", "tokens per head")


@dataclass(frozen=True)
class Pages:
    """Cache pages as integers."""

    name: ClassVar[str] = "int8"
    kind: ClassVar[str] = "store"

    key_bits: Literal[8, 6] = 8
    recent: int = 128


@dataclass(frozen=True)
class Important:
    """Keep the important image tokens."""

    name: ClassVar[str] = "id"
    kind: ClassVar[str] = "tokens"

    keep: Quantity = amount(64, "tokens")


@dataclass(frozen=True)
class Bandit:
    """Choose drafters by their upper confidence bound."""

    name: ClassVar[str] = "ucb"
    kind: ClassVar[str] = "draft"

    horizon: int = 64
    share: Quantity = amount("10%", "a percentage")


@dataclass(frozen=True)
class Layers:
    """Stream layer by layer."""

    name: ClassVar[str] = "layers"
    kind: ClassVar[str] = "stream"


METHODS = (RoundToNearest, Calibrated, Window, Snap, Pages, Important, Bandit, Layers)


@pytest.fixture(scope="session")
def everything() -> MethodTable:
    """Methods for every table of the language."""
    table: dict[str, dict[str, MethodInfo]] = {}
    for info in map(method_info_from_dataclass, METHODS):
        table.setdefault(info.kind, {})[info.name] = info
    return table


@pytest.fixture(scope="session")
def methods(everything: MethodTable) -> MethodTable:
    """Methods for weights alone."""
    return {"quantize": everything["quantize"]}
