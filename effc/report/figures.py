"""Figures as a reader wants them, each carrying the exact value beside the rounded one.

Every function gives HTML: `<data value="8397272" title="8,397,272 bytes">8.0 MiB</data>`. What was
not measured says so; it is never shown as 0. A text where a number belongs ("inf", or worse) is
shown as it is, escaped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from jinja2 import Undefined
from markupsafe import Markup, escape

from effc.cost.text import bytes_text, count_text, seconds_text

Figure = Callable[[Any], Markup]

NOT_MEASURED = Markup('<span class="absent">not measured</span>')


def show(value: Any, text: Callable[[float], str], exact: str = "{}") -> Markup:
    """A number in words and in full.

    Args:
        value: a number; None or an undefined value when there is none.
        text: how to write it.
        exact: the form of the tooltip, with the number in place of the braces.
    """
    if not is_number(value):
        return NOT_MEASURED if value is None or isinstance(value, Undefined) else escape(value)
    full = exact.format(f"{value:,}" if isinstance(value, int) else f"{value:.10g}")
    words = text(value).replace(" ", "\N{NO-BREAK SPACE}")
    return Markup('<data value="{}" title="{}">{}</data>').format(repr(value), full, words)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value can be counted with: finite, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def size(value: Any) -> Markup:
    """Bytes, in binary units."""
    return show(value, lambda count: bytes_text(round(count)), "{} bytes")


def duration(value: Any) -> Markup:
    """Seconds, in the unit that suits them."""
    return show(value, lambda seconds: seconds_text(seconds).replace("us", "µs"), "{} s")


def percent(value: Any) -> Markup:
    """A part of one."""
    return show(value, lambda part: f"{part * 100:.3g} %")


def error(value: Any) -> Markup:
    """A relative error, with its sign."""
    return show(value, _error_text)


def _error_text(part: float) -> str:
    text = f"{100 * part:+.1f}"
    return "0.0 %" if float(text) == 0 else f"{text.replace('-', chr(0x2212))} %"


def times(value: Any) -> Markup:
    """A ratio."""
    return show(value, lambda ratio: f"{ratio:.3g}×")


def count(value: Any) -> Markup:
    """A whole number, its thousands apart."""
    return show(value, lambda number: f"{number:,}")


def number(value: Any) -> Markup:
    """Any number, to four digits."""
    return show(value, digits)


def counted(unit: str) -> Figure:
    """Numbers with decimal prefixes: `counted("FLOP")(3.2e9)` is 3.2 GFLOP."""
    return lambda value: show(value, lambda number: count_text(number, unit), f"{{}} {unit}")


def digits(number: float) -> str:
    """A number to four significant digits, without an exponent where that is readable."""
    if isinstance(number, int) or number == 0:
        return f"{int(number):,}"
    if 1e-4 <= abs(number) < 1e6:
        places = max(0, 3 - math.floor(math.log10(abs(number))))
        text = f"{number:,.{places}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{number:.3g}"


def uncertain(mean: Any, stderr: Any) -> Markup:
    """A mean and its standard error, both cut where the error says nothing more."""
    if not (is_number(mean) and is_number(stderr) and stderr > 0):
        return number(mean)
    places = max(0, 1 - math.floor(math.log10(stderr)))
    return Markup('{} <span class="spread">±\N{NO-BREAK SPACE}{}</span>').format(
        show(mean, lambda value: f"{value:.{places}f}"),
        show(stderr, lambda value: f"{value:.{places}f}"),
    )


def gate_value(gate: Any) -> Markup:
    """What a gate measured, with its doubt; a broken gate without a value met no number."""
    entry = gate if isinstance(gate, Mapping) else {}
    value, spread = entry.get("value"), entry.get("spread")
    if value is None and entry.get("held") is False:
        return Markup("not a number")
    if isinstance(spread, list | tuple) and len(spread) == 2:
        words = Markup('{} <span class="spread">({} to {})</span>')
        return words.format(number(value), *map(number, spread))
    return uncertain(value, entry.get("stderr"))


def figure(value: Any, form: str) -> Markup:
    """A figure in the form of this name."""
    return FILTERS[form](value)


FILTERS: dict[str, Callable[..., Markup]] = {
    "size": size,
    "duration": duration,
    "percent": percent,
    "error": error,
    "times": times,
    "count": count,
    "number": number,
    "flops": counted("FLOP"),
    "flop_rate": counted("FLOP/s"),
    "byte_rate": counted("B/s"),
    "uncertain": uncertain,
    "gate_value": gate_value,
    "figure": figure,
}
"""What templates may call, by name."""
