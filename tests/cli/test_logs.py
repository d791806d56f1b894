"""What debug settings write: log lines, rewrites on stderr, the trace."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from pathlib import Path

import pytest

from effc.cli.logs import JsonLines
from effc.diagnostics import EffcError
from effc.ir.journal import Change, Journal
from effc.settings import cache_folder, settings, unknown_variables
from effc.trace import rewrite_observers

CHANGE = Change("raise-rope", "forward", "insert", "rope", "effc.rope.default")


def journal(**environment: str) -> Journal:
    return Journal(observers=rewrite_observers(settings(environment)))


def test_json_lines_hold_one_object_each() -> None:
    record = logging.LogRecord("effc.compiler", logging.INFO, "f", 1, "pass %s\ndone", ("x",), None)
    record.created = 0.25
    (line,) = JsonLines().format(record).splitlines()
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.250+00:00",
        "level": "info",
        "logger": "effc.compiler",
        "message": "pass x\ndone",
    }


def test_json_lines_hold_the_error() -> None:
    try:
        raise ValueError("why")
    except ValueError:
        record = logging.LogRecord("effc", logging.ERROR, "f", 1, "no", None, sys.exc_info())
    (line,) = JsonLines().format(record).splitlines()
    assert json.loads(line)["error"].endswith("ValueError: why")


def test_nothing_observes_by_default() -> None:
    assert rewrite_observers(settings({})) == ()


def test_the_trace_has_a_line_per_change_and_keeps_earlier_ones(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    for _ in range(2):
        kept = journal(EFFC_TRACE=str(path))
        kept.record(CHANGE)
        kept.record(dataclasses.replace(CHANGE, node="rope_1"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["n"], line["node"]) for line in lines] == [(1, "rope"), (2, "rope_1")] * 2
    assert lines[0] == {
        "n": 1,
        "pass": "raise-rope",
        "stage": "forward",
        "kind": "insert",
        "node": "rope",
        "detail": "effc.rope.default",
    }


def test_a_trace_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EffcError, match="EFFC_TRACE") as caught:
        journal(EFFC_TRACE=str(tmp_path / "nowhere" / "trace.jsonl")).record(CHANGE)
    assert caught.value.code == "E0103"


def test_rewrites_are_printed_as_they_happen(capsys: pytest.CaptureFixture[str]) -> None:
    kept = journal(EFFC_PRINT="rewrites")
    kept.record(CHANGE)
    assert capsys.readouterr().err == "     1 raise-rope: insert forward.rope: effc.rope.default\n"


def test_misspelt_variables_are_known_as_such() -> None:
    given = {"EFFC_LOGS": "debug", "EFFC_LOG": "info", "HOME": "/"}
    assert unknown_variables(given) == ["EFFC_LOGS"]


def test_the_cache_folder_follows_the_desktop_standard() -> None:
    assert cache_folder({"XDG_CACHE_HOME": "/big/cache"}) == Path("/big/cache/effc")
    assert cache_folder({"XDG_CACHE_HOME": ""}) == Path.home() / ".cache" / "effc"
