"""Quantities: values against Python's own arithmetic, dimensions, canonical text."""

from __future__ import annotations

import re
from contextlib import suppress
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effc.diagnostics import PolicyError, Span
from effc.spec.arithmetic import FUNCTIONS, UNITS
from effc.spec.quantity import BYTES, PERCENT, PLAIN, Quantity

COUNTS = {"tokens": 1000, "layers": 24, "heads": 14, "weights": 7}

_ATOMS = st.sampled_from(["0", "3", "12", "0.25", "1.500", "25% of tokens", "50% of heads"])
_NAMES = st.sampled_from([*COUNTS])


def _grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("({})".format, inner),
        st.builds("-{}".format, inner),
        st.builds("{} {} {}".format, inner, st.sampled_from("+-*/"), inner),
        st.builds("{}({}, {})".format, st.sampled_from(["min", "max"]), inner, inner),
        st.builds("ceil({})".format, inner),
    )


EXPRESSIONS = st.recursive(_ATOMS | _NAMES, _grow, max_leaves=8)


def _in_python(text: str) -> Fraction:
    """The text as Python arithmetic over fractions; the two languages share their precedence."""
    code = re.sub(r"(\d+)% of (\w+)", r"(\1 / F(100) * \2)", text)
    code = re.sub(r"(?<![\w.(])\d+(\.\d+)?|(?<=\()\d+(\.\d+)?", r"F('\g<0>')", code)
    names = {name: Fraction(count) for name, count in COUNTS.items()}
    scope = {"F": Fraction, "min": min, "max": max, "ceil": lambda x: Fraction(ceil(x)), **names}
    return Fraction(eval(code, {"__builtins__": {}}, scope))


@settings(max_examples=500, deadline=None, derandomize=True)
@given(EXPRESSIONS)
def test_value_and_canonical_text_agree_with_python(text: str) -> None:
    try:
        quantity = Quantity.parse(text)
    except PolicyError as error:
        # Only dimensions can be wrong with these texts.
        assert re.search("mixes|multiplies|divides", error.message)
        return
    assert Quantity.parse(str(quantity)) == quantity
    try:
        expected = float(_in_python(text))
    except ZeroDivisionError:
        with pytest.raises(PolicyError, match="has no value"):
            quantity.evaluate(COUNTS)
    else:
        assert quantity.evaluate(COUNTS) == expected


TOKENS = [
    *UNITS, *FUNCTIONS, *COUNTS, "layer", "of", "and", "(", ")", "..", "+", "-", "*", "/", "%", ",",
    "0", "12", "3.5", "25%", "1_000", "9" * 5000, "gib", "\n", "$", "\u00e9", "\\", '"x"',
]  # fmt: skip


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(max_size=30) | st.lists(st.sampled_from(TOKENS), max_size=12).map(" ".join))
def test_any_text_parses_or_is_refused_with_a_place(text: str) -> None:
    try:
        quantity = Quantity.parse(text)
    except PolicyError as error:
        assert error.code == "E0207"
        assert error.where is None or isinstance(error.where, Span)
    else:
        assert Quantity.parse(str(quantity)) == quantity
        with suppress(PolicyError):  # no value: a divisor of zero, or more than a float holds
            assert isinstance(quantity.evaluate(COUNTS), float)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3 GiB", 3 * 2**30),
        ("1.5MiB", 1.5 * 2**20),
        ("2 KiB + 1 KB", 2 * 1024 + 1000),
        ("7 MB - 3 GB", 7e6 - 3e9),
        ("25%", 0.25),
        ("50% * 3 GiB", 1.5 * 2**30),
        ("3 GiB / 1 MiB", 3072),
        ("max(256, 25% of tokens)", 256),
        ("max(128, 25% of tokens)", 250),
        ("ceil(1 / 3)", 1),
        ("0.1 * 3 * 10", 3),
        ("2 - 3 - 4", -5),
        ("-2 * 3 - -1", -5),
    ],
)
def test_value(text: str, value: float) -> None:
    assert Quantity.parse(text).evaluate(COUNTS) == value


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("3", "a plain number"),
        ("25%", "a percentage"),
        ("2 * 3 GiB", "bytes"),
        ("10% of layers", "layers"),
        ("max(256, 25% of tokens)", "tokens"),
        ("min(tokens / 4, 100)", "tokens"),
        ("10% of weights / 1% of weights", "a plain number"),
        ("25% * 2", "a percentage"),
    ],
)
def test_dimension(text: str, dimension: str) -> None:
    assert Quantity.parse(text).dimension == dimension


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3 GiB + tokens", "'3 GiB + tokens' mixes bytes and tokens"),
        ("max(256, 25%)", "'max(256, 25%)' mixes a percentage and a plain number"),
        ("3 GiB + 1", "'3 GiB + 1' mixes bytes and a plain number"),
        ("tokens * layers", "'tokens * layers' multiplies tokens by layers"),
        ("3 GiB / 25%", "'3 GiB / 25%' divides bytes by a percentage"),
        ("1 / tokens", "'1 / tokens' divides a plain number by tokens"),
        ("min(10% of heads, 10% of layers)",
         "'min(10% of heads, 10% of layers)' mixes heads and layers"),
    ],
)  # fmt: skip
def test_mixed_dimensions_are_refused(text: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        Quantity.parse(text)
    assert (caught.value.code, caught.value.message) == ("E0207", message)


def test_evaluate_names_the_missing_count() -> None:
    with pytest.raises(PolicyError, match="the number of tokens in '25% of tokens' is not known"):
        Quantity.parse("25% of tokens").evaluate({"layers": 3})


def test_needs_lists_each_name_once() -> None:
    assert Quantity.parse("max(25% of tokens, tokens / 8)").needs == ("tokens",)


@pytest.mark.parametrize("number", [0, 64, -3, 2**63 - 1, 0.1, -0.0, 1e-7, 1e300, -2.5])
def test_plain_number_is_the_same_as_its_text(number: float) -> None:
    quantity = Quantity.of(number)
    assert quantity.dimension == PLAIN
    assert quantity.evaluate() == float(number)
    assert Quantity.parse(str(quantity)) == quantity


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("64", {"", PLAIN, "tokens", "layers"}),
        ("25% of tokens", {"", "tokens"}),
        ("max(256, tokens / 4)", {"", "tokens"}),
        ("25%", {"", PERCENT}),
        ("3 GiB", {"", BYTES}),
    ],
)
def test_what_a_quantity_counts(text: str, allowed: set[str]) -> None:
    dimensions = ("", PLAIN, PERCENT, BYTES, "tokens", "layers")
    quantity = Quantity.parse(text)
    assert {dimension for dimension in dimensions if quantity.counts(dimension)} == allowed
