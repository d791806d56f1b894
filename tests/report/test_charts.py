"""Charts: what is drawn has the sizes it stands for."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import pytest

from effc.report import charts, sizes
from effc.report.roofline import Scale, roofline
from effc.report.svg import Chart, every, ticks


def parsed(markup: str) -> ElementTree.Element:
    return ElementTree.fromstring(str(markup))


def bars(svg: ElementTree.Element, kind: str, size: str) -> list[float]:
    return [float(r.get(size, "").rstrip("%")) for r in svg.iter("rect") if r.get("class") == kind]


@pytest.mark.parametrize("base", (2, 10))
@pytest.mark.parametrize("most", (0.013, 0.99, 1.0, 1.01, 3.0, 7.0, 4096.0, 5e9))
def test_ticks_are_even_and_reach_the_largest_value(most: float, base: int) -> None:
    marks = ticks(most, base=base)
    steps = {round((b - a) / marks[1], 9) for a, b in zip(marks, marks[1:], strict=False)}
    assert marks[0] == 0 and steps == {1.0}
    assert marks[-2] < most <= marks[-1] * (1 + 1e-9)
    assert len(marks) <= 6
    if base == 2:
        assert math.log2(marks[1]).is_integer()


@pytest.mark.parametrize("count", (1, 4, 12, 13, 24, 80, 126, 2000))
def test_labels_do_not_crowd(count: int) -> None:
    labelled = list(every(count))
    assert labelled[0] == 0 and len(labelled) <= 12


def test_bars_are_as_wide_as_the_bytes() -> None:
    groups = [sizes.Group("linear", 28, 1000, 250), sizes.Group("embedding", 1, 500, 750)]
    svg = parsed(charts.sizes_by_kind(groups))
    assert bars(svg, "before", "width") == [100.0, 50.0]
    assert bars(svg, "after", "width") == [25.0]
    assert bars(svg, "grown", "width") == [75.0]


def test_columns_are_as_high_as_the_bytes() -> None:
    groups = [sizes.Group(str(i), 7, 4096, after) for i, after in enumerate((1024, 2048, 4096))]
    svg = parsed(charts.sizes_by_layer(groups))
    (full,) = set(bars(svg, "before", "height"))
    assert bars(svg, "after", "height") == [full / 4, full / 2, full]


def test_errors_are_as_high_as_they_are_large() -> None:
    layers = [{"layer": i, "relative_error": error} for i, error in enumerate((0.0, 0.1, 0.2))]
    svg = parsed(charts.layer_errors(layers))
    zero, middle, top = (float(c.get("cy", "")) for c in svg.iter("circle"))
    assert zero - middle == pytest.approx(middle - top)
    assert top < middle < zero


@pytest.mark.parametrize("layers", ([], [{"layer": 0, "relative_error": None}]))
def test_no_errors_no_chart(layers: list[dict[str, object]]) -> None:
    assert charts.layer_errors(layers) == ""


def machine(peak: float, bandwidth: float) -> dict[str, object]:
    return {"name": "m", "peak_flops": peak, "bandwidth": bandwidth}


@pytest.mark.parametrize(("peak", "bandwidth"), ((1e14, 2e12), (3e11, 1e10), (9.9e14, 4.8e12)))
def test_points_lie_on_the_roof(peak: float, bandwidth: float) -> None:
    """Log-log: the slope is a straight line of slope one, and points at the ridge its end."""
    intensities = (0.5, peak / bandwidth, 900.0)
    stages = [{"name": f"s{i}", "intensity": x} for i, x in enumerate(intensities)]
    svg = parsed(roofline({"machine": machine(peak, bandwidth), "stages": stages}))
    roof = [line for line in svg.iter("line") if line.get("class") == "roof"]
    slope, flat = (
        [float(line.get(k, "").rstrip("%")) for k in ("x1", "y1", "x2", "y2")] for line in roof
    )
    points = [
        (float(c.get("cx", "").rstrip("%")), float(c.get("cy", ""))) for c in svg.iter("circle")
    ]
    for (x, y), (x1, y1, x2, y2) in zip(points, (slope, slope, flat), strict=True):
        assert y == pytest.approx(y1 + (y2 - y1) * (x - x1) / (x2 - x1), abs=0.02)
    assert points[1] == pytest.approx((slope[2], slope[3]), abs=0.01)
    assert flat[1] == flat[3]


@pytest.mark.parametrize(
    "prediction",
    (
        None,
        {},
        {"machine": machine(1e12, 1e10), "stages": []},
        {"machine": {}, "stages": [{"name": "decode", "intensity": 1.0}]},
        {"machine": machine(1e12, 1e10), "stages": [{"name": "decode", "intensity": 0.0}]},
    ),
)
def test_no_roofline_without_a_machine_and_stages(prediction: dict[str, object] | None) -> None:
    assert roofline(prediction) == ""


def test_scales_hold_their_values() -> None:
    scale = Scale.of([0.3, 7.0, 1000.0])
    assert 0 < scale.part(0.3) < scale.part(7.0) < scale.part(1000.0) < 1
    assert scale.part(10.0**scale.low) == 0 and scale.part(10.0**scale.high) == 1


def test_charts_escape_and_describe() -> None:
    chart = Chart("c", "<title>", 'a "b" & c', 10)
    chart.text("0%", 1, "</svg><script>")
    svg = parsed(chart.render())
    assert [part.text for part in svg] == ["<title>", 'a "b" & c', "</svg><script>"]
    assert svg.get("aria-labelledby") == "c-title c-description"
    assert svg.get("role") == "img"
