"""The charts of the report: sizes by kind and by layer, errors by layer, ratios of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from effc.cost.text import bytes_text
from effc.report.figures import digits, is_number
from effc.report.sizes import Group
from effc.report.svg import Chart, across, axis, element, every, ticks

ROW = 46


def change_text(before: float, after: float) -> str:
    """A size before and after."""
    return f"{bytes_text(before)} → {bytes_text(after)}"


def sizes_by_kind(groups: Sequence[Group]) -> Markup:
    """One row per kind of site: what it took, and what it takes."""
    most = max((max(g.before, g.after) for g in groups), default=0)
    if not most:
        return Markup("")
    said = "; ".join(f"{g.name}: {change_text(g.before, g.after)}" for g in groups)
    chart = Chart("kinds", "Bytes of weights by kind of site", said, ROW * len(groups))
    for i, group in enumerate(groups):
        top = ROW * i
        sites = f"{group.sites} site{'s' if group.sites > 1 else ''}"
        chart.text(0, top + 13, f"{group.name}, {sites}", "label")
        words = change_text(group.before, group.after)
        chart.text("100%", top + 13, words, "value", text_anchor="end")
        for width, kind in ((group.before, "before"), (group.after, group.outcome)):
            chart.add(
                "rect", x=0, y=top + 20, width=across(width / most), height=14, rx=2, class_=kind
            )
    return chart.render()


def sizes_by_layer(groups: Sequence[Group]) -> Markup:
    """One column per layer."""
    most = max((max(g.before, g.after) for g in groups), default=0)
    if not most:
        return Markup("")
    marks = ticks(most, base=2)
    top, bottom = 10.0, 170.0
    change = change_text(sum(g.before for g in groups), sum(g.after for g in groups))
    said = f"{len(groups)} layers, {change} in all"
    chart = Chart("layers", "Bytes of weights by layer", said, 200, "with-axis")
    axis(chart, [(m / marks[-1], bytes_text(m)) for m in marks], top, bottom)
    slot = 1 / len(groups)
    width = min(0.72 * slot, 0.06)
    for i, group in enumerate(groups):
        hint = element("title", f"layer {group.name}: {change_text(group.before, group.after)}")
        left = across((i + 0.5) * slot - width / 2)
        for value, kind in ((group.before, "before"), (group.after, group.outcome)):
            height = round(value / marks[-1] * (bottom - top), 2)
            chart.add(
                "rect",
                hint,
                x=left,
                y=bottom - height,
                width=across(width),
                height=height,
                class_=kind,
            )
    _layer_labels(chart, [group.name for group in groups], bottom)
    return chart.render()


def _layer_labels(chart: Chart, names: Sequence[str], bottom: float) -> None:
    for i in every(len(names)):
        chart.text(
            across((i + 0.5) / len(names)), bottom + 19, names[i], "tick", text_anchor="middle"
        )


def layer_errors(layers: Sequence[Mapping[str, Any]]) -> Markup:
    """The relative error of the residual stream after each layer."""
    shown = [entry for entry in layers if is_number(entry.get("relative_error"))]
    values = [float(entry["relative_error"]) for entry in shown]
    if not values:
        return Markup("")
    worst = max(range(len(values)), key=values.__getitem__)
    names = [str(entry.get("layer")) for entry in shown]
    said = f"from {digits(values[0])} to {digits(values[-1])}; largest after layer {names[worst]}"
    chart = Chart("errors", "Relative error after each layer", said, 200, "with-axis")
    marks = ticks(max(values) or 0.01)
    top, bottom = 10.0, 170.0
    axis(chart, [(m / marks[-1], f"{digits(100 * m)} %") for m in marks], top, bottom)
    points = [
        (across((i + 0.5) / len(values)), bottom - value / marks[-1] * (bottom - top))
        for i, value in enumerate(values)
    ]
    for start, end in zip(points, points[1:], strict=False):
        chart.line(start, end, "curve")
    for (x, y), name, value in zip(points, names, values, strict=True):
        hint = element("title", f"after layer {name}: {digits(100 * value)} %")
        chart.add("circle", hint, cx=x, cy=round(y, 2), r=3.5, class_="point")
    _layer_labels(chart, names, bottom)
    return chart.render()
