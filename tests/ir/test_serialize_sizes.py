"""The grammar of sizes: printing and parsing are inverse, and values are those of Python."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.source import ConstantSource
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv

from effc.diagnostics import ArtifactError
from effc.ir import sizes
from effc.ir.sizes import Operation

NAMES = ("B", "T", "n_1", "max_len")

ATOMS = st.one_of(st.integers(0, 10**6), st.sampled_from(NAMES))
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.builds(
        Operation, st.sampled_from(["+", "-", "*", "//", "max", "min"]), inner, inner
    ),
    max_leaves=12,
)
FIXED = settings(max_examples=300, deadline=None, derandomize=True)


@FIXED
@given(EXPRESSIONS)
def test_parsing_undoes_rendering(expression: sizes.Expression) -> None:
    text = sizes.render(expression)
    assert sizes.parse(text) == expression
    assert sizes.canonical(text) == text


@FIXED
@given(EXPRESSIONS, st.tuples(*[st.integers(1, 50) for _ in NAMES]))
def test_values_are_those_of_python(expression: sizes.Expression, values: tuple[int, ...]) -> None:
    named: dict[str, int] = dict(zip(NAMES, values, strict=True))
    text = sizes.render(expression)
    try:
        expected = eval(text, {"__builtins__": {"max": max, "min": min}} | named)
    except ZeroDivisionError:
        with pytest.raises(ArtifactError, match="divides by zero"):
            sizes.evaluate(expression, named)
    else:
        assert sizes.evaluate(sizes.parse(text), named) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "B +", "(B", "B)", "B T", "B / 2", "-B", "1.5", "max(B)", "min(B, T, 2)", "f(B)"),
        *("B ** 2", "B.T", "B[0]", "'B'", "B\n+ T; x", "()", "B, T", "max", "(" * 40 + "B"),
        *("1" * 600, "é", "B\x00", "__import__('os')"),
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ArtifactError, match="E0603"):
        sizes.evaluate(sizes.parse(text), {"B": 2, "T": 3})


@FIXED
@given(st.text(alphabet="BT01 +-*/(),maxin_.\n", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        canonical = sizes.canonical(text)
    except ArtifactError:
        return
    assert sizes.canonical(canonical) == canonical


ENV = ShapeEnv(specialize_zero_one=False, duck_shape=False)


def _symbol(value: int) -> torch.SymInt:
    source = ConstantSource(f"size_{value}")
    symbol = ENV.create_symbol(value, source, dynamic_dim=DimDynamic.DYNAMIC)
    size = ENV.create_symintnode(symbol, hint=value, source=source)
    assert isinstance(size, torch.SymInt)
    return size


def test_symbolic_sizes_keep_their_values() -> None:
    first, second = _symbol(12), _symbol(5)
    names = {str(first.node.expr): "B", str(second.node.expr): "T"}
    for size, value in (
        (first, 12),
        (first + second, 17),
        (first - second, 7),
        (3 - second, -2),
        (2 * first * second - 7, 113),
        (first * first, 144),
        ((first + 3) // 4, 3),
        (first % 5, 2),
        (torch.sym_max(first, second), 12),
        (torch.sym_min(first, second + 1), 6),
    ):
        text = sizes.of_value(size, names)
        assert isinstance(text, str)
        assert sizes.canonical(text) == text
        assert sizes.evaluate(sizes.parse(text), {"B": 12, "T": 5}) == value


def test_a_size_outside_the_grammar_is_unknown() -> None:
    size = torch.sym_int(torch.sym_float(_symbol(9)) / 2.5)
    assert sizes.of_value(size, {}) == sizes.UNKNOWN
