"""Convolutions, against ONNX Runtime and against their definitions."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.frontend.onnx.ops.oracles import agree, attributes
from tests.frontend.onnx.ops.texts import calls, numbers, run, standard

GEOMETRIES = [
    {"auto_pad": pad, "strides": [stride] * 2, "dilations": [dilation] * 2}
    for pad, stride, dilation in product(("SAME_UPPER", "SAME_LOWER", "VALID"), (1, 2, 3), (1, 2))
    if pad == "VALID" or dilation == 1
] + [
    {"pads": [0, 1, 2, 1], "strides": [2, 1]},
    {"pads": [1, 1, 1, 1], "dilations": [2, 1]},
    {"pads": [2, 0, 2, 0]},
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_geometries_hold_for_all_sizes_of_the_images(geometry: dict[str, Any]) -> None:
    text = "m (float[N,2,H,W] x, float[4,2,3,2] w, float[4] b) => (float[N,4,P,Q] y)"
    text += f" {{ y = Conv {attributes(geometry)} (x, w, b) }}"
    samples = [
        (numbers(*s), numbers(4, 2, 3, 2), numbers(4))
        for s in ((1, 2, 7, 8), (3, 2, 6, 5), (2, 2, 9, 9))
    ]
    agree(text, *samples)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_groups_in_all_ranks(rank: int) -> None:
    sizes = ",".join(f"S{i}" for i in range(rank))
    kernel = [3, 2, 1][:rank]
    text = f"m (float[N,4,{sizes}] x, float[6,2,{','.join(map(str, kernel))}] w) "
    text += f"=> (float[N,6,{sizes.replace('S', 'P')}] y) {{ y = Conv <group = 2> (x, w) }}"
    agree(text, (numbers(2, 4, *[5] * rank), numbers(6, 2, *kernel)))


def test_symmetric_padding_is_the_operators_own() -> None:
    text = "m (float[N,2,H,W] x, float[4,2,3,3] w) => (float[N,4,P,Q] y)"
    text += " { y = Conv <pads = [1, 1, 1, 1]> (x, w) }"
    (call, _) = calls(text)
    assert "aten.conv2d.default(x, w, None, [1, 1], [1, 1], [1, 1], 1)" in call


@pytest.mark.parametrize(
    "geometry",
    [
        {"strides": [2, 3], "pads": [1, 0, 0, 2]},
        {"strides": [2, 2], "output_padding": [1, 1], "pads": [1, 1, 1, 1]},
        {"strides": [3, 2], "output_shape": [10, 8]},
        {"strides": [3, 2], "output_shape": [8, 7], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 2], "auto_pad": "SAME_LOWER"},
        {"strides": [3, 2], "auto_pad": "SAME_UPPER"},
        {"dilations": [2, 1], "group": 2, "strides": [2, 2]},
    ],
    ids=str,
)
def test_transposed_geometries(geometry: dict[str, Any]) -> None:
    text = "m (float[N,4,3,4] x, float[4,2,3,2] w, float[M] b) => (float[N,M,P,Q] y)"
    text += f" {{ y = ConvTranspose {attributes(geometry)} (x, w, b) }}"
    bias = numbers(2 * geometry.get("group", 1))
    agree(text, *[(numbers(n, 4, 3, 4), numbers(4, 2, 3, 2), bias) for n in (1, 3)])


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER"])
def test_transposed_sizes_may_be_open(auto_pad: str) -> None:
    text = "m (float[N,2,H,W] x, float[2,3,3,3] w) => (float[N,3,P,Q] y) { y = ConvTranspose "
    text += f'<strides = [2, 2], auto_pad = "{auto_pad}"> (x, w) }}'
    agree(text, *[(numbers(2, 2, h, w), numbers(2, 3, 3, 3)) for h, w in ((1, 4), (5, 2))])


@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000), pad=st.integers(0, 2), stride=st.integers(1, 2))
def test_integers_are_exact(seed: int, pad: int, stride: int) -> None:
    """Against the same convolution in Python integers."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (1, 2, 5, 5), dtype=np.uint8)
    w = rng.integers(-128, 128, (3, 2, 3, 3), dtype=np.int8)
    points = np.array([7, -5, 100], dtype=np.int8)
    text = "m (uint8[1,2,5,5] x, int8[3,2,3,3] w, uint8 a, int8[3] b) => (int32[1,3,P,Q] y) {"
    text += f" y = ConvInteger <pads = {[pad] * 4}, strides = {[stride] * 2}> (x, w, a, b) }}"
    (found,) = run(text, x, w, np.uint8(130), points)
    wide = np.pad(x.astype(int) - 130, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    kernels = w.astype(int) - points.astype(int)[:, None, None, None]
    views = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), (2, 3))
    views = views[:, :, ::stride, ::stride]
    np.testing.assert_array_equal(found, np.einsum("nchwij,mcij->nmhw", views, kernels))
    assert found.dtype == np.int32


@pytest.mark.parametrize("dims", [1, 2])
def test_col2im_sums_what_overlaps(dims: int) -> None:
    text = "m (float[N,K,L] x, int64[D] image, int64[D] block) => (float[N,C,P,Q] y) { y = Col2Im "
    text += (
        attributes({"strides": [2, 1][:dims], "pads": [1, 0][:dims] * 2}) + " (x, image, block) }"
    )
    image, block = np.array([6, 5][:dims]), np.array([3, 2][:dims])
    counts = [(6 + 2 - 3) // 2 + 1, 5 - 2 + 1][:dims]
    x = numbers(2, 3 * int(block.prod()), int(np.prod(counts)))
    fixed = text.replace("int64[D]", f"int64[{dims}]")
    (found,), (expected,) = run(fixed, x, image, block), standard(fixed, x, image, block, opset=21)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_deformed_by_nothing_is_a_convolution() -> None:
    head = "m (float[N,4,H,W] x, float[6,2,3,3] w, float[N,36,P,Q] o) => (float[N,6,P,Q] y) {"
    geometry = "strides = [2, 1], pads = [1, 1, 1, 1], group = 2"
    deformed = f"{head} y = DeformConv <offset_group = 2, {geometry}> (x, w, o) }}"
    x, w = numbers(2, 4, 7, 5), numbers(6, 2, 3, 3)
    none = np.zeros((2, 36, 4, 5), np.float32)
    plain = "m (float[2,4,7,5] x, float[6,2,3,3] w) => (float[2,6,4,5] y) {"
    plain += f" y = Conv <{geometry}> (x, w) }}"
    np.testing.assert_allclose(run(deformed, x, w, none)[0], run(plain, x, w)[0], atol=1e-5)


def test_deformed_by_whole_rows_looks_further_down() -> None:
    text = "m (float[1,1,H,W] x, float[1,1,1,1] w, float[1,2,H,W] o) => (float[1,1,H,W] y) {"
    text += " y = DeformConv (x, w, o) }"
    x = numbers(1, 1, 5, 4)
    offset = np.zeros((1, 2, 5, 4), np.float32)
    offset[:, 0] = 2
    (found,) = run(text, x, np.ones((1, 1, 1, 1), np.float32), offset)
    np.testing.assert_array_equal(found[0, 0], np.vstack([x[0, 0, 2:], np.zeros((2, 4))]))
