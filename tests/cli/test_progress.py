"""What long work looks like: on a terminal, in a log, under --json; and the table of verdicts."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from effc.cli.progress import EVERY, PlainProgress, peak_memory, shown_progress
from effc.cli.verdicts import VerdictTable, summary_warning
from effc.ir.manager import Verdict
from effc.progress import SILENT, Progress

PASSES = (
    Verdict("remove-no-ops", 1, 1, 0, 12 << 20, 12 << 20, 0.012, "no change"),
    Verdict("quantize-weights", 120, 118, 2, 12 << 20, 3 << 20, 1.5, "changed", "2 small", 0.01234),
)


def test_the_default_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    for progress in (SILENT, Progress()):
        _use(progress)
    with shown_progress(VerdictTable(), quiet=True) as progress:
        _use(progress)
    assert capfd.readouterr() == ("", "")


def _use(progress: Progress) -> None:
    progress.step("writing", "out")
    progress.advance("w", 1, 2)
    progress.line("a result")
    progress.verdict(PASSES[0])


def test_a_log_has_a_line_per_step_and_results_on_stdout(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with shown_progress(VerdictTable(), quiet=False) as progress:
        _use(progress)
    text, errors = capfd.readouterr()
    assert errors == "writing out\n"
    assert [line.split()[0] for line in text.splitlines()] == ["a", "pass", "remove-no-ops"]


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _lines(capsys: pytest.CaptureFixture[str]) -> Iterator[str]:
    yield from capsys.readouterr().err.splitlines()


def test_long_steps_say_every_few_seconds_how_far_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    progress = PlainProgress(VerdictTable(), clock)
    progress.step("writing")
    progress.advance("first", 20, 100)  # these 20 were there before
    clock.now += EVERY - 0.1
    progress.advance("second", 30, 100)
    assert list(_lines(capsys)) == ["writing"]
    clock.now += 5.1  # 10 s for 30 of the 80 that are to be done
    progress.advance("third", 50, 100)
    clock.now += 1.0
    progress.advance("fourth", 60, 100)
    assert list(_lines(capsys)) == ["  writing: 50%, 17 s left (third)"]
    progress.step("measuring", "the text")
    clock.now += 60.0
    progress.advance("row", 0, 10)
    progress.advance("nothing to do", 0, 0)
    assert list(_lines(capsys)) == ["measuring the text", "  measuring: 0% (row)"]


def test_verdicts_stand_in_columns_whatever_comes_later() -> None:
    table = VerdictTable()
    header, first = table.lines(PASSES[0])
    (second,) = table.lines(PASSES[1])
    assert header.split() == [
        *("pass", "matched", "applied", "skipped", "bytes", "time", "KL", "status", "detail"),
    ]
    assert first.split() == ["remove-no-ops", "1", "1", "0", "-", "0.01", "s", "-", "no", "change"]
    assert second.endswith("12.0 MiB -> 3.0 MiB    1.50 s   0.0123  changed    2 small")
    for word in ("matched", "applied", "skipped", "bytes"):
        end = header.index(word) + len(word)
        assert {line[end - 1] == " " for line in (first, second)} == {False}
        assert {line[end : end + 2] for line in (first, second)} == {"  "}
    assert len(header) < 120
    assert table.missing(PASSES) == []
    assert table.missing([*PASSES, PASSES[0].__class__("x", 0, 0, 0, 0, 0, 0.0, "no change")])


def test_one_warning_for_all_places_that_were_left() -> None:
    assert summary_warning(PASSES[:1]) is None
    other = Verdict("select-kernels", 10, 7, 3, 0, 0, 0.0, "changed")
    assert summary_warning([*PASSES, other]) == (
        "warning: 5 of 130 places were left as they are "
        "(quantize-weights: 2 small; select-kernels: no reason given)"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own figure is read from /proc")
def test_peak_memory_is_what_the_kernel_says() -> None:
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    assert peak_memory() == pytest.approx(int(found[1]) * 1024, rel=0.01)


ON_A_TERMINAL = """
from effc.cli.progress import shown_progress
from effc.cli.verdicts import VerdictTable
with shown_progress(VerdictTable(), quiet=False) as progress:
    progress.step("writing", "[bold]out[/]")
    progress.advance("a" * 200, 1 << 20, 4 << 20)
    progress.line("a result in [brackets] " + "and long " * 30)
print("the end")
"""


def _on_a_terminal(stdout_too: bool) -> tuple[str, str]:
    """What appears on a terminal, and in a file behind stdout."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ON_A_TERMINAL],
        stdin=subprocess.DEVNULL,
        stdout=theirs if stdout_too else subprocess.PIPE,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
        text=True,
    )
    os.close(theirs)
    shown = io.BytesIO()
    while True:
        try:
            piece = os.read(ours, 1 << 16)
        except OSError:  # the other side was closed
            break
        if not piece:
            break
        shown.write(piece)
    os.close(ours)
    text, _ = process.communicate()
    assert process.returncode == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue().decode())
    return plain, text or ""


def test_a_terminal_has_a_bar_and_results_above_it() -> None:
    shown, _ = _on_a_terminal(stdout_too=True)
    assert "a result in [brackets] and long" in shown
    assert "peak" in shown and "25%" in shown
    assert shown.rstrip().endswith("the end")


def test_results_reach_a_file_whole_while_the_bar_is_on_the_terminal() -> None:
    shown, text = _on_a_terminal(stdout_too=False)
    assert text.splitlines() == ["a result in [brackets] " + "and long " * 30, "the end"]
    assert "a result" not in shown
