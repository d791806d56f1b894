"""Figures: rounded for the eye, exact in the markup, and honest about what is missing."""

from __future__ import annotations

import math
import re

import pytest
from jinja2 import Undefined

from effc.report import figures

SPACE = "\N{NO-BREAK SPACE}"


def shown(markup: str) -> str:
    return re.sub("<[^>]*>", "", markup).replace(SPACE, " ")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    (
        ("size", 0, "0 B"),
        ("size", 8397272, "8.0 MiB"),
        ("duration", 0.00281, "2.81 ms"),
        ("duration", 0.000204, "204 µs"),
        ("duration", 12.5, "12.5 s"),
        ("percent", 0.94631, "94.6 %"),
        ("error", -0.2705, "−27.1 %"),
        ("error", 0.0, "0.0 %"),
        ("error", -0.0004, "0.0 %"),
        ("error", 0.3, "+30.0 %"),
        ("times", 6.0779, "6.08×"),
        ("count", 1234567, "1,234,567"),
        ("number", 0.01234567, "0.01235"),
        ("number", 3.0, "3"),
        ("number", 0, "0"),
        ("number", 0.0, "0"),
        ("number", 2.5e-9, "2.5e-09"),
        ("flops", 3778953216, "3.78 GFLOP"),
        ("byte_rate", 33e9, "33 GB/s"),
    ),
)
def test_rounding(name: str, value: float, words: str) -> None:
    markup = figures.FILTERS[name](value)
    assert shown(markup) == words
    assert f'value="{value!r}"' in markup


@pytest.mark.parametrize("name", [n for n in figures.FILTERS if n not in ("figure", "uncertain")])
@pytest.mark.parametrize("nothing", (None, Undefined()))
def test_what_was_not_measured_is_not_zero(name: str, nothing: object) -> None:
    assert shown(figures.FILTERS[name](nothing)) == "not measured"


@pytest.mark.parametrize("text", ("inf", "nan", "<b>7</b>", '"><script>'))
def test_texts_instead_of_numbers_are_escaped(text: str) -> None:
    markup = figures.size(text)
    assert "<" not in markup and '"' not in markup
    assert markup.unescape() == text


@pytest.mark.parametrize("value", (math.inf, -math.inf, math.nan, True, False))
def test_only_finite_numbers_count(value: float) -> None:
    assert not figures.is_number(value)


@pytest.mark.parametrize(
    ("mean", "stderr", "words"),
    (
        (0.01234567, 0.00087654, "0.01235 ± 0.00088"),
        (1.0127, 0.00213, "1.0127 ± 0.0021"),
        (22.375, 1.5, "22.4 ± 1.5"),
        (220.4, 15.2, "220 ± 15"),
        (0.5, 0.0, "0.5"),
        (0.5, None, "0.5"),
        (None, 0.1, "not measured"),
    ),
)
def test_the_error_says_how_many_digits_mean_anything(
    mean: float | None, stderr: float | None, words: str
) -> None:
    assert shown(figures.uncertain(mean, stderr)) == words


@pytest.mark.parametrize(
    ("gate", "words"),
    (
        ({"value": 0.31, "held": False, "stderr": 0.02}, "0.310 ± 0.020"),
        ({"value": 0.9, "held": True, "spread": [0.8, 1.0]}, "0.9 (0.8 to 1)"),
        ({"value": None, "held": False, "stderr": None}, "not a number"),
        ({"value": None, "held": None}, "not measured"),
        ({"value": 2, "held": True}, "2"),
    ),
)
def test_gates(gate: dict[str, object], words: str) -> None:
    assert shown(figures.gate_value(gate)) == words
