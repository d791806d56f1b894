"""Numbers for people."""

from __future__ import annotations

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB")
_DECIMAL = ("", "k", "M", "G", "T", "P")
_SMALL = ("s", "ms", "us", "ns")


def bytes_text(count: float) -> str:
    """Bytes with a binary unit, e.g. "12.5 MiB"."""
    value, unit = _scaled(float(count), 1024, _BINARY)
    return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"


def count_text(count: float, unit: str) -> str:
    """A count with a decimal prefix, e.g. "3.8 TFLOP"."""
    value, prefix = _scaled(float(count), 1000, _DECIMAL)
    return f"{value:.3g} {prefix}{unit}"


def seconds_text(seconds: float) -> str:
    """A time in the unit that suits it, e.g. "12.5 ms"."""
    for unit in _SMALL[:-1]:
        if seconds >= 1:
            return f"{seconds:.3g} {unit}"
        seconds *= 1000
    return f"{seconds:.3g} {_SMALL[-1]}"


def _scaled(value: float, base: int, units: tuple[str, ...]) -> tuple[float, str]:
    for unit in units[:-1]:
        if value < base:
            return value, unit
        value /= base
    return value, units[-1]
