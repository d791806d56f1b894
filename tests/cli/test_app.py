"""The table of commands: every row is a command, and none is imported before it runs."""

from __future__ import annotations

import inspect
import json
import os
import resource
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from effc.cli import main
from effc.cli.app import COMMANDS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_row_is_a_command(name: str) -> None:
    location, help = COMMANDS[name]
    module, _, function = location.partition(":")
    command = getattr(import_module(module), function)
    assert {"json", "debug"} <= inspect.signature(command).parameters.keys()
    assert (inspect.getdoc(command) or "").startswith(help.rstrip("."))


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    listed = [line[0] for line in lines if line and line[0] in COMMANDS]
    assert listed == list(COMMANDS)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["check", "--help"]])
def test_only_the_command_that_runs_is_imported(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from effc.cli import main\n"
        "main(sys.argv[1:])\n"
        "print(*(name for name in sys.modules if name.startswith('effc.cli.')), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    modules = {location.partition(":")[0] for location, _ in COMMANDS.values()}
    expected = {"effc.cli.check"} if arguments[0] == "check" else set()
    assert modules & set(done.stderr.split()) == expected


def test_unknown_command_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chekc"]) == 2
    assert "there is no command 'chekc'\nhelp: did you mean 'check'?" in capsys.readouterr().err
    assert main(["chekc", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "E0101" and "'check'" in error["help"]


def seconds(arguments: list[str], bytecode: Path, runs: int = 15) -> float:
    """Processor time of a process, user and system, in the least disturbed of several runs.

    Modules have bytecode, as installing a package gives them; a first run writes it to `bytecode`.

    Wall time would also count the waiting for other processes; on an idle machine the two agree,
    since nothing here waits. Other load also slows a processor down, and never speeds it up.
    """
    environment = os.environ | {"PYTHONPYCACHEPREFIX": str(bytecode)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, check=False)
    times = []
    for _ in range(runs):
        before = _children()
        subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, check=False)
        times.append(_children() - before)
    return min(times)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


POLICIES = {
    "valid": ('version = 1\n[[quantize]]\nwhere = "linear or embedding"\nmethod = "rtn"\n', 0),
    "refused": ('version = 1\n[[quantize]]\nwhere = "liner"\nmethod = "rtn"\n', 2),
}


@pytest.mark.parametrize("name", POLICIES)
def test_check_answers_within_three_tenths_of_a_second(name: str, tmp_path: Path) -> None:
    text, code = POLICIES[name]
    path = tmp_path / "policy.toml"
    path.write_text(text)
    command = [sys.executable, "-c", "import sys; from effc.cli import main; sys.exit(main())"]
    assert subprocess.run([*command, "check", path], cwd=ROOT, check=False).returncode == code
    assert seconds([*command, "check", str(path)], tmp_path / "bytecode") < 0.3


def test_import_takes_less_than_a_tenth_of_a_second(tmp_path: Path) -> None:
    assert seconds([sys.executable, "-c", "import effc"], tmp_path) < 0.1
