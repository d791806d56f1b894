"""What a compilation saved and what it cost: report.json in the few lines that fit a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from effc.cli.output import table_lines
from effc.cli.quality import quality_lines, seconds_text
from effc.cost.text import bytes_text

Report = Mapping[str, Any]

_SECONDS = "_seconds"


def summary_lines(report: Report) -> list[str]:
    """The quality block and the table of predictions; no line for what was not measured.

    Args:
        report: the content of report.json.
    """
    lines: list[str] = []
    if quality := report.get("quality"):
        reverted = {"reverted": report.get("reverted", ())}
        lines += ["", "quality", *quality_lines({**quality, **reverted}, short=True)]
    if compared := report.get("prediction_error"):
        rows = [row for entry in compared for row in _row(entry, report)]
        lines += ["", *table_lines(("size or time", "predicted", "measured", "off by"), rows)]
    return [*lines, ""] if lines else []


def _row(entry: Mapping[str, Any], report: Report) -> Iterator[tuple[str, str, str, str]]:
    what, error = entry["what"], entry["error"]
    off = "-" if error is None else f"{100 * error:+.1f} %".replace("+0.0 %", "0.0 %")
    if what.endswith(_SECONDS):
        # The roofline bounds times from below.
        stage = what.removesuffix(_SECONDS)
        label = f"time of {stage}" + (" per token" if stage == "decode" else "")
        yield label, f"≥ {seconds_text(entry['predicted'])}", seconds_text(entry["measured"]), off
    else:
        label = _label(what, report.get("target") or {})
        yield label, bytes_text(entry["predicted"]), bytes_text(entry["measured"]), off


def _label(what: str, target: Mapping[str, Any]) -> str:
    """A key of the report's bytes in words."""
    if what != "cache_at_context":
        return what.removesuffix("_after").replace("_", " ")
    batch = target.get("batch") or 1
    return f"cache at {f'{batch} x ' if batch > 1 else ''}{target.get('context')} tokens"
