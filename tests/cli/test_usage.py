"""Wrong command lines: one style, one code, as text and as JSON."""

from __future__ import annotations

import json

import pytest

from effc.cli import main

WRONG: dict[str, tuple[str, str, str]] = {
    "complie model": ("effc", "there is no command 'complie'", "did you mean 'compile'? "),
    "zzz": ("effc", "there is no command 'zzz'", ""),
    "--json": ("effc", "there is no option --json", ""),
    "compile m --sepc p": ("effc compile", "there is no option --sepc", "did you mean '--spec'? "),
    "run a --zzz": ("effc run", "there is no option --zzz", ""),
    "diff a": ("effc diff", "B is missing", ""),
    "export a --to mlir": ("effc export", "--output is missing", ""),
    "check a b c": ("effc check", "unexpected argument 'b'", ""),
    "export a --to": ("effc export", "--to needs a value", ""),
    "compile m --force=3": ("effc compile", "--force takes no value", ""),
    "run a --top-k many": ("effc run", "--top-k takes an integer, found 'many'", ""),
    "run a --top-p many": ("effc run", "--top-p takes a number, found 'many'", ""),
    "bench a --rounds 0": ("effc bench", "--rounds takes an integer >= 1, found 0", ""),
}


@pytest.mark.parametrize("line", WRONG)
def test_what_is_said(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, message, meant = WRONG[line]
    help = f"{meant}see `{program} --help`"
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    if "--json" not in line:
        assert (out, err) == ("", f"{program}: error[E0101]: {message}\nhelp: {help}\n")
        assert main([*line.split(), "--json"]) == 2
        out, err = capsys.readouterr()
    if "needs a value" not in message:  # there, --json is taken for the value
        error = {"code": "E0101", "message": message, "where": program, "help": help}
        assert (json.loads(out), err) == ({"error": error}, "")


def test_no_command_at_all_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().err
