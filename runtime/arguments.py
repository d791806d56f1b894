"""Checks of what callers pass to the engine: each refusal names argument, found and allowed."""

from __future__ import annotations

import math

from effc.diagnostics import GenerationError


def bad_argument(
    name: str, found: object, allowed: str, help: str | None = None
) -> GenerationError:
    """E0703: an argument that cannot be used."""
    return GenerationError("E0703", f"{name} must be {allowed}, found {found!r}", help=help)


def require_integer(name: str, value: object, least: int) -> None:
    """Refuse what is no integer >= `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise bad_argument(name, value, f"an integer >= {least}")


def require_number(
    name: str, value: object, *, above: float = -math.inf, least: float = -math.inf, most: float
) -> None:
    """Refuse what is no number x with x > `above`, `least` <= x <= `most`."""
    bounds = [
        f"{sign} {bound}"
        for sign, bound in ((">", above), (">=", least), ("<=", most))
        if math.isfinite(bound)
    ]
    allowed = "a finite number " + " and ".join(bounds)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise bad_argument(name, value, allowed)
    if not (value > above and least <= value <= most):
        raise bad_argument(name, value, allowed)


def require_bool(name: str, value: object) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(value, bool):
        raise bad_argument(name, value, "True or False")
