"""Regions of interest and the choice among boxes, against ONNX Runtime and a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effc.diagnostics import ModelError
from tests.frontend.onnx.ops.oracles import agree, attributes
from tests.frontend.onnx.ops.texts import calls, numbers, run, same

REGIONS = np.array(
    [[0, 0, 5, 6], [1.3, 2.2, 8.1, 7.9], [-3, -2, 2, 1], [4, 4, 4.2, 4.1], [6, 3, 30, 9]],
    np.float32,
)


def aligned(**form: object) -> str:
    """A model of one RoiAlign."""
    given = {"output_height": 3, "output_width": 2, **form}
    text = "m (float[N,2,H,W] x, float[R,4] r, int64[R] i) => (float[R,2,3,2] y)"
    return f"{text} {{ y = RoiAlign {attributes(given)} (x, r, i) }}"


@pytest.mark.parametrize("ratio", [0, 1, 3])
@pytest.mark.parametrize("transformation", ["half_pixel", "output_half_pixel"])
def test_means_of_regions(ratio: int, transformation: str) -> None:
    """With ratio 0 every region has as many samples as its size asks for."""
    text = aligned(
        sampling_ratio=ratio, coordinate_transformation_mode=transformation, spatial_scale=0.7
    )
    images = np.array([0, 1, 1, 0, 1])
    samples = [(numbers(2, 2, *s), REGIONS, images) for s in ((9, 10), (5, 7))]
    agree(text, *samples, (numbers(1, 2, 6, 6), REGIONS[:1], images[:1]), opset=16, atol=1e-5)


def test_largest_of_regions() -> None:
    text = aligned(sampling_ratio=2, mode="max", coordinate_transformation_mode="output_half_pixel")
    agree(text, (numbers(2, 2, 9, 10), REGIONS, np.array([0, 1, 1, 0, 1])), opset=16, atol=1e-5)


def test_a_largest_of_unknown_number_is_refused() -> None:
    with pytest.raises(ModelError, match="depends on the region"):
        calls(aligned(mode="max"), 16)


def test_no_regions() -> None:
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    (found,) = run(aligned(), numbers(1, 2, 5, 5), *none, opset=16)
    assert found.shape == (0, 2, 3, 2)


def chosen(
    boxes: np.ndarray, scores: np.ndarray, limit: int, overlap: float, least: float
) -> list[list[int]]:
    """The definition: best first, dropping what overlaps something taken before."""
    rows = []
    for b, c in np.ndindex(*scores.shape[:2]):
        taken: list[int] = []
        for i in sorted(range(scores.shape[2]), key=lambda i: (-scores[b, c, i], i)):
            wanted = scores[b, c, i] > least and len(taken) < limit
            if wanted and all(ratio(boxes[b, i], boxes[b, j]) <= overlap for j in taken):
                taken.append(i)
        rows += [[b, c, i] for i in taken]
    return rows


def ratio(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes, given by any two opposite corners."""
    sides = []
    for box in (a, b):
        sides.append((np.minimum(box[:2], box[2:]), np.maximum(box[:2], box[2:])))
    low = np.maximum(sides[0][0], sides[1][0])
    high = np.minimum(sides[0][1], sides[1][1])
    shared = np.prod(np.maximum(high - low, 0))
    total = sum(np.prod(s[1] - s[0]) for s in sides) - shared
    return float(shared / total) if shared > 0 else 0.0


NMS = "m (float[B,N,4] b, float[B,C,N] s, int64 m, float o, float t) => (int64[K,3] y)"
NMS += " { y = NonMaxSuppression <center_point_box = %d> (b, s, m, o, t) }"


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    limit=st.integers(0, 5),
    overlap=st.sampled_from([0.0, 0.3, 0.55, 1.0]),
    least=st.sampled_from([-1.0, 0.3]),
    shape=st.sampled_from([(1, 1, 1), (1, 2, 7), (2, 3, 9)]),
)
def test_boxes(
    seed: int, limit: int, overlap: float, least: float, shape: tuple[int, int, int]
) -> None:
    """Both formats; coordinates with few values give ties of scores and of overlaps."""
    rng = np.random.default_rng(seed)
    boxes = rng.integers(0, 8, (shape[0], shape[2], 4)).astype(np.float32)
    scores = (rng.integers(0, 6, shape) / 5).astype(np.float32)
    rest = [np.array(limit), np.array(overlap, np.float32), np.array(least, np.float32)]
    wanted = chosen(boxes, scores, limit, np.float32(overlap), np.float32(least))
    expected = np.array(wanted, np.int64).reshape(-1, 3)
    same(run(NMS % 0, boxes, scores, *rest), [expected])
    ends = np.sort(boxes.reshape(*boxes.shape[:2], 2, 2), axis=2)
    middle, size = ends.mean(2), ends[:, :, 1] - ends[:, :, 0]
    centered = np.concatenate([middle, size], -1)
    same(run(NMS % 1, centered, scores, *rest), [expected])


def test_nothing_is_chosen_without_a_limit() -> None:
    text = "m (float[B,N,4] b, float[B,C,N] s) => (int64[K,3] y) { y = NonMaxSuppression (b, s) }"
    (found,) = run(text, numbers(1, 3, 4), numbers(1, 2, 3))
    assert found.shape == (0, 3)
