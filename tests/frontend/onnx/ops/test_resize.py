"""Resizing and sampling, against the reference implementation, ONNX Runtime and torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effc.diagnostics import ModelError
from tests.frontend.onnx.ops.oracles import agree, attributes
from tests.frontend.onnx.ops.texts import calls, numbers, run, same, standard

MODES = [
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
]


@st.composite
def forms(draw: st.DrawFn) -> dict[str, Any]:
    """Attributes of a Resize of the last two axes."""
    mode = draw(st.sampled_from(["nearest", "linear", "cubic"]))
    found: dict[str, Any] = {
        "mode": mode,
        "axes": draw(st.sampled_from([[2, 3], [3, 2]])),
        "coordinate_transformation_mode": draw(st.sampled_from(MODES)),
    }
    if mode == "nearest":
        rules = ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"]
        found["nearest_mode"] = draw(st.sampled_from(rules))
    else:
        found["antialias"] = draw(st.integers(0, 1))
    if mode == "cubic":
        found["cubic_coeff_a"] = draw(st.sampled_from([-0.75, -0.5]))
        found["exclude_outside"] = draw(st.integers(0, 1))
    return found


@settings(max_examples=40, deadline=None, derandomize=True)
@given(form=forms(), scales=st.tuples(*[st.sampled_from([0.5, 0.6, 1.0, 1.5, 2.0, 3.0])] * 2))
def test_scales(form: dict[str, Any], scales: tuple[float, float]) -> None:
    """Known and given at run time; images of known and of unknown sizes."""
    x, factors = numbers(2, 3, 5, 4), np.array(scales, np.float32)
    use = f"y = Resize {attributes(form)} (x, , s) }}"
    known = f"s = Constant <value = float[2] {{{scales[0]}, {scales[1]}}}> () {use}"
    fixed = f"m (float[2,3,5,4] x, float[2] s) => (float[N,3,P,Q] y) {{ {use}"
    wanted = standard(fixed, x, factors)
    np.testing.assert_allclose(run(fixed, x, factors)[0], wanted[0], rtol=1e-4, atol=1e-5)
    for sizes in ("2,3,5,4", "N,3,H,W"):
        (found,) = run(f"m (float[{sizes}] x) => (float[N,3,P,Q] y) {{ {known}", x)
        np.testing.assert_allclose(found, wanted[0], rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    form=forms(),
    sizes=st.tuples(*[st.integers(2, 9)] * 2),
    policy=st.sampled_from(["stretch", "not_larger", "not_smaller"]),
)
def test_sizes(form: dict[str, Any], sizes: tuple[int, int], policy: str) -> None:
    form = {**form, "keep_aspect_ratio_policy": policy}
    text = "m (float[N,3,H,W] x, int64[2] s) => (float[N,3,P,Q] y)"
    text += f" {{ y = Resize {attributes(form)} (x, , , s) }}"
    arrays = numbers(2, 3, 5, 4), np.array(sizes)
    wanted = standard(text, *arrays)[0]
    np.testing.assert_allclose(run(text, *arrays)[0], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_crops(mode: str) -> None:
    """Places beyond the image have the extrapolation value; none is on its edge."""
    form = {
        "mode": mode,
        "axes": [2, 3],
        "coordinate_transformation_mode": "tf_crop_and_resize",
        "extrapolation_value": 7.0,
    }
    text = "m (float[N,1,H,W] x, float[4] r, int64[2] s) => (float[N,1,P,Q] y)"
    text += f" {{ y = Resize {attributes(form)} (x, r, , s) }}"
    for region in ([0.11, 0.23, 0.87, 0.74], [-0.31, 0.02, 1.17, 1.46]):
        for sizes in ([3, 4], [6, 7]):
            arrays = numbers(2, 1, 5, 6), np.array(region, np.float32), np.array(sizes)
            np.testing.assert_allclose(
                run(text, *arrays)[0], standard(text, *arrays)[0], rtol=1e-5, atol=1e-6
            )


@pytest.mark.parametrize(
    ("mode", "corners"), [("linear", 0), ("linear", 1), ("cubic", 0), ("cubic", 1)]
)
def test_what_torch_exports_is_torchs_own_call(mode: str, corners: int) -> None:
    """Sizes taken from another tensor, as in feature pyramids."""
    transformation = "align_corners" if corners else "half_pixel"
    text = (
        "m (float[N,3,H,W] x, float[N,3,P,Q] z) => (float[N,3,P,Q] y) { s = Shape (z) y = Resize "
    )
    text += f'<mode = "{mode}", coordinate_transformation_mode = "{transformation}"> (x, , , s) }}'
    names = {"linear": "bilinear", "cubic": "bicubic"}
    assert any(f"upsample_{names[mode]}2d" in line for line in calls(text))
    for shape, size in (((1, 3, 4, 5), (9, 3)), ((2, 3, 6, 2), (1, 8))):
        x = numbers(*shape)
        wanted = torch.nn.functional.interpolate(
            torch.from_numpy(x), size, mode=names[mode], align_corners=bool(corners)
        )
        (found,) = run(text, x, numbers(shape[0], 3, *size))
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-5, atol=1e-6)


def test_doubling_repeats_elements_and_is_one_call() -> None:
    text = "m (float[N,3,H,W] x) => (float[N,3,P,Q] y) {"
    text += " s = Constant <value = float[4] {1.0, 1.0, 2.0, 2.0}> () y = Resize "
    text += '<nearest_mode = "floor", coordinate_transformation_mode = "asymmetric"> (x, , s) }'
    assert sum("upsample_nearest2d" in line for line in calls(text)) == 1
    x = numbers(2, 3, 5, 4)
    same(run(text, x), [x.repeat(2, 2).repeat(2, 3)])


@pytest.mark.parametrize("opset", [7, 9])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_upsample(opset: int, mode: str) -> None:
    attribute = f'mode = "{mode}"' + (", scales = [1.0, 1.0, 2.0, 3.0]" if opset == 7 else "")
    given = "" if opset == 7 else "s = Constant <value = float[4] {1.0, 1.0, 2.0, 3.0}> ()"
    text = f"m (float[N,3,H,W] x) => (float[N,3,P,Q] y) {{ {given} y = Upsample <{attribute}> "
    agree(text + f"(x{'' if opset == 7 else ', s'}) }}", (numbers(2, 3, 5, 4),), opset=opset)


def test_resize_before_opset_11() -> None:
    text = "m (float[N,3,H] x) => (float[N,3,P] y) {"
    text += " s = Constant <value = float[3] {1.0, 1.0, 2.5}> () y = Resize (x, s) }"
    agree(text, (numbers(2, 3, 5),), opset=10)


def test_neither_scales_nor_sizes() -> None:
    text = "m (float[N,3] x) => (float[N,P] y) { y = Resize (x) }"
    with pytest.raises(ModelError, match="neither scales nor sizes"):
        run(text, numbers(2, 3))


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
def test_grid_sample(mode: str, padding: str, align: int) -> None:
    form = {"mode": mode, "padding_mode": padding, "align_corners": align}
    text = "m (float[N,C,H,W] x, float[N,P,Q,2] g) => (float[N,C,P,Q] y)"
    text += f" {{ y = GridSample {attributes(form)} (x, g) }}"
    grid = np.random.default_rng(0).uniform(-1.3, 1.3, (2, 4, 3, 2)).astype(np.float32)
    agree(text, (numbers(2, 3, 5, 4), grid), (numbers(1, 1, 3, 3), grid[:1]), rtol=1e-4, atol=1e-5)


def test_the_identity_map_gives_the_image_back() -> None:
    text = "m (float[N,C,H,W] x, float[N,2,3] t) => (float[N,C,H,W] y) {"
    text += " s = Shape (x) g = AffineGrid (t, s) y = GridSample (x, g) }"
    x, same_place = numbers(2, 3, 5, 4), np.tile(np.eye(2, 3, dtype=np.float32), (2, 1, 1))
    np.testing.assert_allclose(run(text, x, same_place)[0], x, atol=1e-5)
