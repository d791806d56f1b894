"""Pooling, against ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.frontend.onnx.ops.oracles import agree, attributes
from tests.frontend.onnx.ops.texts import calls, numbers, run


@st.composite
def geometries(draw: st.DrawFn, dilated: bool = True) -> dict[str, Any]:
    """Attributes whose padding is smaller than the windows, as the standard asks for."""
    kernel = [draw(st.integers(1, 3)) for _ in range(2)]
    dilations = [draw(st.integers(1, 2)) if dilated else 1 for _ in range(2)]
    pads = [draw(st.integers(0, k - 1)) for k in (*kernel, *kernel)]
    automatic = draw(st.sampled_from([None, None, "SAME_UPPER", "SAME_LOWER", "VALID"]))
    found = {
        "kernel_shape": kernel,
        # Automatic padding of windows that leave gaps would be negative.
        "strides": [draw(st.integers(1, 3 if automatic is None else k)) for k in kernel],
        "ceil_mode": draw(st.integers(0, 1)) if automatic is None else 0,
        "pads": pads if automatic is None else None,
        "auto_pad": automatic,
    }
    if dilated and automatic is None:
        found["dilations"] = dilations
    return found


IMAGES = ((1, 2, 9, 7), (3, 1, 8, 10))


def pool(op: str, geometry: dict[str, Any], sizes: str = "N,C,H,W") -> str:
    """A model of one pooling operator."""
    return f"m (float[{sizes}] x) => (float[N,C,P,Q] y) {{ y = {op} {attributes(geometry)} (x) }}"


@settings(max_examples=30, deadline=None, derandomize=True)
@given(geometry=geometries())
def test_max_pool(geometry: dict[str, Any]) -> None:
    agree(pool("MaxPool", geometry), *[(numbers(*shape),) for shape in IMAGES])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(geometry=geometries(dilated=False), count=st.integers(0, 1))
def test_average_pool(geometry: dict[str, Any], count: int) -> None:
    text = pool("AveragePool", {**geometry, "count_include_pad": count})
    agree(text, *[(numbers(*shape),) for shape in IMAGES])


@settings(max_examples=15, deadline=None, derandomize=True)
@given(geometry=geometries(), p=st.integers(1, 3))
def test_lp_pool(geometry: dict[str, Any], p: int) -> None:
    geometry = {**geometry, "ceil_mode": 0, "p": p}
    agree(pool("LpPool", geometry), *[(numbers(*shape),) for shape in IMAGES])


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("pads", [[0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 0, 1]])
def test_indices_name_places_of_the_whole_input(order: int, pads: list[int]) -> None:
    text = "m (float[N,C,H,W] x) => (float[N,C,P,Q] y, int64[N,C,P,Q] i) { y, i = MaxPool "
    text += f"<kernel_shape = [2, 3], strides = [2, 2], pads = {pads}, storage_order = {order}>"
    agree(text + " (x) }", *[(numbers(*shape),) for shape in IMAGES])


def test_indices_in_one_dimension() -> None:
    text = "m (float[N,C,L] x) => (float[N,C,P] y, int64[N,C,P] i)"
    text += " { y, i = MaxPool <kernel_shape = [3], strides = [2], pads = [1, 0]> (x) }"
    agree(text, (numbers(2, 3, 9),), (numbers(1, 1, 4),))


@pytest.mark.parametrize("dims", [1, 3])
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
def test_other_ranks(op: str, dims: int) -> None:
    sizes = ",".join(["N", "C", *(f"S{i}" for i in range(dims))])
    geometry = {"kernel_shape": [2] * dims, "pads": [1, 0, 1][:dims] + [0, 1, 1][:dims]}
    text = pool(op, geometry, sizes).replace("float[N,C,P,Q]", f"float[{sizes.replace('S', 'P')}]")
    agree(text, (numbers(2, 3, *[5] * dims),))


def test_uneven_padding_of_averages_counts_what_is_there() -> None:
    """Dilated windows have no operator in ONNX Runtime; a mean of equal elements is one of them."""
    geometry = {"kernel_shape": [2, 2], "dilations": [2, 2], "pads": [1, 0, 0, 1]}
    (found,) = run(pool("AveragePool", geometry), np.full((1, 1, 5, 5), 7, np.float32))
    np.testing.assert_allclose(found, 7, rtol=1e-6)
    (found,) = run(
        pool("AveragePool", {**geometry, "count_include_pad": 1}), np.ones((1, 1, 5, 5), np.float32)
    )
    assert found[0, 0, 0].tolist() == [0.5] * 3 + [0.25]


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
def test_global(op: str) -> None:
    text = f"m (float[N,C,H,W] x) => (float[N,C,1,1] y) {{ y = {op} (x) }}"
    agree(text, *[(numbers(*shape),) for shape in IMAGES])


def test_unpooling_brings_the_elements_back() -> None:
    text = "m (float[N,1,4,6] x) => (float[N,1,4,6] y) {"
    text += " p, i = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)"
    text += " y = MaxUnpool <kernel_shape = [2, 2], strides = [2, 2]> (p, i) }"
    x = numbers(3, 1, 4, 6)
    blocks = x.reshape(3, 1, 2, 2, 3, 2)
    best = blocks.max((3, 5), keepdims=True)
    np.testing.assert_array_equal(
        run(text, x)[0], np.where(blocks == best, blocks, 0).reshape(x.shape)
    )


def test_usual_pooling_is_one_call() -> None:
    geometry = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}
    for op in ("MaxPool", "AveragePool"):
        assert len(calls(pool(op, geometry))) == 2
