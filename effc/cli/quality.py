"""What was measured, as lines for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from effc.cost.text import bytes_text

Quality = Mapping[str, Any]
Lines = Iterator[tuple[str, str]]

_WIDTH = 18


def quality_lines(quality: Quality, *, short: bool = False) -> list[str]:
    """A quality report (`effc.evaluate.measure`), one line per part, in fixed order.

    Args:
        quality: the report.
        short: leave out layers, sizes and the proof that methods acted; add the rules that a gate
            undid, if "reverted" of the report is among the keys.
    """
    parts = (_laws, _outputs, _layers, _sizes, _times, _evidence, _gates)
    chosen = (_laws, _outputs, _times, _reverted, _gates) if short else parts
    lines = [line for part in chosen for line in part(quality)]
    width = max([_WIDTH, *(len(name) + 2 for name, _ in lines)])
    aligned = [f"{name:<{width}}{text}" for name, text in lines]
    return aligned + [f"note: {note}" for note in quality.get("notes", ())]


def _laws(quality: Quality) -> Lines:
    if "kl" not in quality:
        return
    kl, perplexity, top1 = (quality[name] for name in ("kl", "perplexity", "top1"))
    yield "text", quality["text"]["label"]
    yield "KL divergence", f"{_with_error(kl)} nats per token, largest {_number(kl['max'])}"
    ratio = _with_error({"mean": perplexity["ratio"], "stderr": perplexity["ratio_stderr"]})
    before, after = _number(perplexity["original"]), _number(perplexity["rewritten"])
    yield "perplexity", f"{before} -> {after}, ratio {ratio}"
    yield "top-1 agreement", f"{_percent(top1)} of the tokens"
    if greedy := quality.get("greedy"):
        yield (
            "greedy answers",
            f"agree for {greedy['mean_length']:.1f} of {greedy['new_tokens']} tokens on average, "
            f"{greedy['identical']} of {greedy['prompts']} to the end",
        )


def _outputs(quality: Quality) -> Lines:
    if "inputs" in quality:
        yield "inputs", quality["inputs"]["label"]
    for output in quality.get("outputs", ()):
        error, cosine = _number(output["relative_error"]), _number(output["cosine"])
        yield f"result {output['name']}", f"relative error {error}, cosine {cosine}"


def _layers(quality: Quality) -> Lines:
    layers = [layer for layer in quality["layers"] if layer["relative_error"] is not None]
    if layers:
        worst = max(layers, key=lambda layer: layer["relative_error"])
        last = layers[-1]
        yield (
            "layers",
            f"relative error {_number(last['relative_error'])} after the last one, largest "
            f"{_number(worst['relative_error'])} after layer {worst['layer']}",
        )


def _sizes(quality: Quality) -> Lines:
    original, rewritten = quality["bytes"]["original"], quality["bytes"]["rewritten"]
    for name in ("weights", "cache"):
        before, after = original[name], rewritten[name]
        if before is not None and after is not None:
            yield name, f"{bytes_text(before)} -> {bytes_text(after)}"


def _times(quality: Quality) -> Lines:
    for part, time in (quality.get("time") or {}).items():
        per = " per token" if part == "decode" else ""
        before, after = seconds_text(time["original_s"]), seconds_text(time["rewritten_s"])
        low, high = time["spread"]
        yield (
            f"time of {part}",
            f"{before} -> {after}{per}, ratio {time['ratio']:.3f} ({low:.3f} to {high:.3f} in "
            f"{time['rounds']} rounds)",
        )


def _evidence(quality: Quality) -> Lines:
    for entry in quality.get("fired", ()):
        verdict = "acted" if entry["ok"] else "DID NOT ACT"
        yield entry["method"], f"{verdict}: {entry['evidence']}"


def _reverted(quality: Quality) -> Lines:
    for entry in quality.get("reverted", ()):
        yield "reverted", f"{entry['rule']}, at {entry['place']}"


def _gates(quality: Quality) -> Lines:
    from effc.evaluate.gates import describe

    for gate in quality["gates"]:
        name, _, text = describe(gate).partition(": ")
        yield f"gate {name}", text


def seconds_text(seconds: float) -> str:
    """A time with a unit in which it reads well."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * scale >= 1 or unit == "µs":
            return f"{seconds * scale:.3g} {unit}"
    raise AssertionError("the last unit takes everything")


def _with_error(estimate: Mapping[str, float | None]) -> str:
    error = estimate["stderr"]
    return _number(estimate["mean"]) + ("" if error is None else f" ± {error:.2g}")


def _percent(estimate: Mapping[str, float | None]) -> str:
    mean, error = estimate["mean"], estimate["stderr"]
    if mean is None:
        return "not a number"
    return f"{100 * mean:.1f}" + ("" if error is None else f" ± {100 * error:.1f}") + " %"


def _number(value: float | None) -> str:
    return "not a number" if value is None else f"{value:.4g}"
