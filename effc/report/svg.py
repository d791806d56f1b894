"""Charts as SVG text: crisp at every width, in the colours of the page.

Positions across are per cent of the chart's width and positions down are pixels, so a chart gets
narrower on a phone while its letters stay as they are. Nothing is drawn outside of the chart but
axis labels, for which the page leaves a margin. Colours and fonts come from the style sheet.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

Coordinate = float | str


def element(tag: str, *children: str, **attributes: object) -> Markup:
    """One element; `class_` and `text_anchor` stand for `class` and `text-anchor`."""
    named = ((k.rstrip("_").replace("_", "-"), v) for k, v in attributes.items())
    given = Markup("").join(Markup(' {}="{}"').format(k, v) for k, v in named if v is not None)
    inside = Markup("").join(children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(tag), given, inside)


def across(part: float) -> str:
    """A position or width, as a part of the chart's width."""
    return f"{100 * part:.3f}%"


@dataclass
class Chart:
    """A drawing with a title and a description for those who do not see it.

    Attributes:
        name: unique on the page.
        title: what it shows.
        description: what is to be seen, in words.
        height: in pixels.
        margin: the class of the page's style that leaves room for the axis labels.
    """

    name: str
    title: str
    description: str
    height: int
    margin: str = ""
    parts: list[Markup] = field(default_factory=list)

    def add(self, tag: str, *children: str, **attributes: object) -> None:
        """Draw an element on top of the others."""
        self.parts.append(element(tag, *children, **attributes))

    def text(self, x: Coordinate, y: float, words: str, kind: str = "", **more: object) -> None:
        """Write words; `text_anchor` says which end of them stands at `x`."""
        self.add("text", words, x=x, y=round(y, 2), class_=kind or None, **more)

    def line(self, start: tuple[str, float], end: tuple[str, float], kind: str) -> None:
        """Draw a straight line."""
        (x1, y1), (x2, y2) = start, end
        self.add("line", x1=x1, y1=round(y1, 2), x2=x2, y2=round(y2, 2), class_=kind)

    def render(self) -> Markup:
        """The whole `svg` element."""
        head = (
            element("title", self.title, id=f"{self.name}-title"),
            element("desc", self.description, id=f"{self.name}-description"),
        )
        return element(
            "svg",
            *head,
            *self.parts,
            class_=f"chart {self.margin}".strip(),
            width="100%",
            height=self.height,
            role="img",
            aria_labelledby=f"{self.name}-title {self.name}-description",
        )


def ticks(most: float, about: int = 4, base: int = 10) -> list[float]:
    """Round numbers from 0 to at least `most`.

    Args:
        most: the largest value to be shown, above 0.
        about: how many steps; at most one more is made.
        base: 10 for steps of 1, 2 or 5 times a power of ten, 2 for powers of two.
    """
    if base == 2:
        step = 2.0 ** math.ceil(math.log2(most / about))
    else:
        power = 10.0 ** math.floor(math.log10(most / about))
        step = next(power * m for m in (1, 2, 5, 10) if power * m * about >= most * (1 - 1e-9))
    count = math.ceil(most / step - 1e-9)
    return [step * i for i in range(count + 1)]


def every(count: int, most: int = 12) -> Iterable[int]:
    """Which of `count` columns get a label, at most about `most` of them."""
    step = next(s for s in (1, 2, 4, 5, 10, 20, 50, 100, 1000) if s * most >= count or s == 1000)
    return range(0, count, step)


def axis(chart: Chart, marks: Sequence[tuple[float, str]], top: float, bottom: float) -> None:
    """Horizontal lines with labels at the left; each mark is a part of the height and its label."""
    for part, label in marks:
        y = bottom - part * (bottom - top)
        chart.line(("0%", y), ("100%", y), "base" if part == 0 else "grid")
        chart.text(-8, y + 4, label, "tick", text_anchor="end")
