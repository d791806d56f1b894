"""What stands at the top of the page: the verdict in words, and the figures behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from markupsafe import Markup

from effc.report.figures import (
    NOT_MEASURED,
    Figure,
    duration,
    error,
    is_number,
    number,
    percent,
    size,
    times,
    uncertain,
)

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Tile:
    """One headline figure.

    Attributes:
        label: what it is.
        value: as measured, or "not measured".
        lines: what to compare it with.
    """

    label: str
    value: Markup
    lines: tuple[Markup, ...] = ()


@dataclass(frozen=True)
class Headline:
    """The head of the page.

    Attributes:
        title: the model.
        state: "held", "broken", "partial" or "none", of the gates.
        gates: the state in words.
        sentences: what was saved and what it cost.
        tiles: the figures.
    """

    title: str
    state: str
    gates: str
    sentences: tuple[Markup, ...]
    tiles: tuple[Tile, ...]


def headline(report: Json) -> Headline:
    """Condense a report."""
    quality = report.get("quality") or {}
    state, words = gates(quality.get("gates") or ())
    title = "/".join(PurePath(str(report.get("source") or "model")).parts[-2:])
    return Headline(title, state, words, tuple(_sentences(report)), tuple(_tiles(report)))


def gates(entries: Sequence[Json]) -> tuple[str, str]:
    """The state of all gates, and a sentence about it."""
    if not entries:
        return "none", "No gates were set"
    broken = [str(gate.get("name")) for gate in entries if gate.get("held") is False]
    unknown = [str(gate.get("name")) for gate in entries if gate.get("held") is None]
    total = f"{len(entries)} gate{'s' if len(entries) > 1 else ''}"
    if broken:
        return "broken", f"{len(broken)} of {total} broken: {', '.join(broken)}"
    if unknown:
        return "partial", f"{len(unknown)} of {total} not measured: {', '.join(unknown)}"
    return "held", "The gate held" if len(entries) == 1 else f"All {total} held"


def _sentences(report: Json) -> list[Markup]:
    sizes, quality = report.get("bytes") or {}, report.get("quality") or {}
    before, after = sizes.get("weights_before"), sizes.get("weights_after")
    said = []
    if is_number(before) and is_number(after):
        words = Markup("The weights take {} instead of {}.")
        said.append(words.format(size(after), size(before)))
    said.append(_cost(quality))
    work, time = _timed(quality)
    if is_number(time.get("ratio")):
        words = Markup("{} takes {} of the original's time.")
        said.append(words.format(work, percent(time["ratio"])))
    if reverted := len(report.get("reverted") or ()):
        word = "rule was" if reverted == 1 else "rules were"
        said.append(Markup("{} {} reverted by a gate.").format(reverted, word))
    return said


def _cost(quality: Json) -> Markup:
    kl, perplexity = quality.get("kl") or {}, quality.get("perplexity") or {}
    if is_number(kl.get("mean")):
        words = Markup("The output distribution moved by {} nats per token")
        said = words.format(number(kl["mean"]))
        if is_number(perplexity.get("ratio")):
            said += Markup(", perplexity by a factor of {}").format(number(perplexity["ratio"]))
        return said + Markup(".")
    if outputs := quality.get("outputs"):
        worst = max(
            (o["relative_error"] for o in outputs if is_number(o.get("relative_error"))),
            default=None,
        )
        return Markup("The outputs moved by at most {}.").format(percent(worst))
    return Markup("What that costs in quality was not measured.")


def _tiles(report: Json) -> list[Tile]:
    sizes, quality = report.get("bytes") or {}, report.get("quality") or {}
    target = report.get("target") or {}
    tiles = [_weights(report, sizes)]
    if is_number(sizes.get("cache_per_token")):
        per_token = Markup("{} per token").format(size(sizes["cache_per_token"]))
        context, batch = target.get("context"), target.get("batch")
        label = f"Cache at {context:,} tokens" if is_number(context) else "Cache at full context"
        label += f", batch {batch}" if is_number(batch) and batch > 1 else ""
        lines = (per_token, *_predicted(report, "cache_at_context", size))
        tiles.append(Tile(label, size(sizes.get("cache_at_context")), lines))
    return [*tiles, *_quality_tiles(quality), *_time_tiles(report, quality)]


def _weights(report: Json, sizes: Json) -> Tile:
    ratio = sizes.get("ratio")
    lines = [Markup("from {}").format(size(sizes.get("weights_before")))]
    if is_number(ratio) and ratio > 1:
        lines[0] += Markup(", {} smaller").format(times(ratio))
    lines += _predicted(report, "weights_after", size)
    return Tile("Weights", size(sizes.get("weights_after")), tuple(lines))


def _predicted(
    report: Json, name: str, figure: Figure, words: str = "predicted {}"
) -> list[Markup]:
    """What was predicted of a figure, and how far off that was."""
    entries = report.get("prediction_error") or ()
    entry = next((e for e in entries if e.get("what") == name), None)
    if entry is None:
        return []
    predicted = Markup(words).format(figure(entry.get("predicted")))
    return [predicted, Markup("off by {}").format(error(entry.get("error")))]


def _quality_tiles(quality: Json) -> list[Tile]:
    if not quality:
        return [Tile("Quality", NOT_MEASURED, (Markup("the policy sets no [quality]"),))]
    kl, top1 = quality.get("kl") or {}, quality.get("top1") or {}
    perplexity = quality.get("perplexity") or {}
    rows: list[tuple[str, Any, Callable[[], Markup], tuple[Markup, ...]]] = [
        (
            "KL divergence",
            kl.get("mean"),
            lambda: uncertain(kl["mean"], kl.get("stderr")),
            (Markup("nats per token"),),
        ),
        (
            "Perplexity ratio",
            perplexity.get("ratio"),
            lambda: uncertain(perplexity["ratio"], perplexity.get("ratio_stderr")),
            (
                Markup("{} from {}").format(
                    number(perplexity.get("rewritten")), number(perplexity.get("original"))
                ),
            ),
        ),
        (
            "Same first choice",
            top1.get("mean"),
            lambda: percent(top1["mean"]),
            (Markup("of the tokens"),),
        ),
    ]
    return [Tile(label, show(), lines) for label, value, show, lines in rows if is_number(value)]


def _time_tiles(report: Json, quality: Json) -> list[Tile]:
    work, time = _timed(quality)
    if not is_number(time.get("rewritten_s")):
        return []
    lines = [Markup("from {}").format(duration(time.get("original_s")))]
    if is_number(time.get("ratio")):
        lines[0] += Markup(", {}").format(times(time["ratio"]))
    lines += _predicted(report, "decode_seconds", duration, "predicted at least {}")
    return [Tile(work, duration(time["rewritten_s"]), tuple(lines))]


def _timed(quality: Json) -> tuple[str, Json]:
    """What the time of a model is judged by, and its times."""
    times_of = quality.get("time") or {}
    if decode := times_of.get("decode"):
        return "Decoding a token", decode
    return "A call", times_of.get("call") or {}
