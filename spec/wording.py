"""Values and lists in the words of a message."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def either(parts: Sequence[str]) -> str:
    """The parts as alternatives: `a, b or c`."""
    return " or ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def fits(value: object) -> bool:
    """Whether a number is finite and, as TOML demands of integers, has at most 64 bits."""
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return not isinstance(value, float) or math.isfinite(value)


def shown(value: object) -> str:
    """A value as a policy writes it, long ones cut."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= 60 else f'"{value[:57]}..."'
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, int) and not fits(value):
        return "a number of more than 64 bits"
    return str(value)
