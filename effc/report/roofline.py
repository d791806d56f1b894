"""The roofline of the target: how fast each stage can be, and what bounds it.

Williams, Waterman, Patterson 2009: at an arithmetic intensity of I FLOP per byte a machine with
peak F and bandwidth W attains at most min(F, W * I) FLOP/s. The ridge is F / W.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from effc.cost.text import count_text
from effc.report.figures import is_number
from effc.report.svg import Chart, across, element

HEIGHT = 280
TOP, BOTTOM = 14.0, 236.0


@dataclass(frozen=True)
class Scale:
    """A logarithmic axis over whole decades `low`..`high` (powers of ten)."""

    low: int
    high: int

    @staticmethod
    def of(values: Sequence[float]) -> Scale:
        """The decades that hold all values, with some room."""
        low = math.floor(math.log10(min(values) / 1.5))
        return Scale(low, max(low + 1, math.ceil(math.log10(max(values) * 1.5))))

    def part(self, value: float) -> float:
        """Where a value stands, as a part of the axis."""
        return (math.log10(value) - self.low) / (self.high - self.low)

    def decades(self) -> range:
        """The powers of ten to be labelled."""
        step = -(-(self.high - self.low) // 6)
        return range(self.low, self.high + 1, step)


def roofline(prediction: Mapping[str, Any] | None) -> Markup:
    """The roof of the machine and the stages under it; empty where either is unknown."""
    prediction = prediction or {}
    machine = prediction.get("machine") or {}
    peak, bandwidth = machine.get("peak_flops"), machine.get("bandwidth")
    stages = [stage for stage in prediction.get("stages") or () if _drawable(stage)]
    if not (is_number(peak) and is_number(bandwidth) and min(peak, bandwidth) > 0 and stages):
        return Markup("")
    attained = [min(peak, bandwidth * stage["intensity"]) for stage in stages]
    across_scale = Scale.of([peak / bandwidth, *(stage["intensity"] for stage in stages)])
    up_scale = Scale.of([peak, *attained, bandwidth * 10.0**across_scale.low])
    said = "; ".join(_in_words(stage, peak / bandwidth) for stage in stages)
    chart = Chart("roofline", "Roofline of the target", said, HEIGHT, "with-axis")
    _grid(chart, across_scale, up_scale)
    _roof(chart, across_scale, up_scale, peak, bandwidth)
    _points(chart, across_scale, up_scale, stages, attained)
    return chart.render()


def _drawable(stage: Mapping[str, Any]) -> bool:
    return is_number(stage.get("intensity")) and stage["intensity"] > 0


def _in_words(stage: Mapping[str, Any], ridge: float) -> str:
    intensity = stage["intensity"]
    bound = "memory" if intensity < ridge else "compute"
    return f"{stage['name']}: {intensity:.3g} FLOP per byte, bound by {bound}"


def _down(scale: Scale, value: float) -> float:
    return BOTTOM - scale.part(value) * (BOTTOM - TOP)


def _grid(chart: Chart, x: Scale, y: Scale) -> None:
    for power in y.decades():
        down = _down(y, 10.0**power)
        chart.line(("0%", down), ("100%", down), "grid")
        chart.text(-8, down + 4, count_text(10.0**power, ""), "tick", text_anchor="end")
    for power in x.decades():
        at = across(x.part(10.0**power))
        chart.line((at, TOP), (at, BOTTOM), "grid")
        anchor = "end" if power == x.high else "middle"
        chart.text(at, BOTTOM + 18, f"{10.0**power:,g}", "tick", text_anchor=anchor)
    chart.text("50%", BOTTOM + 38, "FLOP per byte", "tick", text_anchor="middle")


def _roof(chart: Chart, x: Scale, y: Scale, peak: float, bandwidth: float) -> None:
    ridge = peak / bandwidth
    corner = (across(x.part(ridge)), _down(y, peak))
    left = 10.0**x.low
    chart.line(("0%", _down(y, bandwidth * left)), corner, "roof")
    chart.line(corner, ("100%", _down(y, peak)), "roof")
    chart.line(corner, (corner[0], BOTTOM), "ridge")


def _points(
    chart: Chart,
    x: Scale,
    y: Scale,
    stages: Sequence[Mapping[str, Any]],
    attained: Sequence[float],
) -> None:
    for stage, rate in zip(stages, attained, strict=True):
        part, down = x.part(stage["intensity"]), _down(y, rate)
        hint = element("title", f"{stage['name']}: {count_text(rate, 'FLOP/s')} at most")
        chart.add("circle", hint, cx=across(part), cy=round(down, 2), r=6, class_="point")
        anchor, shift = ("end", -4) if part > 0.6 else ("start", 4)
        chart.text(
            across(part), down + 24, str(stage["name"]), "name", text_anchor=anchor, dx=shift
        )
