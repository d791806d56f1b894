"""What a user reads after a mistake: place, code, reason, remedy; and nothing is left behind."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
import torch

import effc
from effc.cli import main
from effc.diagnostics import CATALOGUE, EffcError
from tests.conftest import Golden
from tests.e2e.families import FAMILIES
from tests.messages.case import Case
from tests.messages.cases import CASES, CHAPTERS
from tests.messages.page import GOLDEN, PAGE, golden, page

POLICY = 'version = 1\n\n[[quantize]]\nwhere = "linear"\nmethod = "rtn"\nbits = 8\n'

# Words of other libraries and figures of files, which differ between versions.
FOREIGN = (
    (r"the file has \d+ bytes, the manifest says \d+", "the file has N bytes, the manifest says M"),
    (r"\b[0-9a-f]{64}\b", "<sha256>"),
    (r"(bytes of at least) \d+", r"\1 N"),
    (r"(version of torch: .*, found) \S+", r"\1 X"),
    (r"\b0\.\d{3,}\b", "0.X"),
    (r"(installed onnx) \S+ (knows versions up to) \d+", r"\1 X \2 N"),
    (r"(export the model with opset) \d+", r"\1 N"),
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoint `model` and its artifact `out`."""
    folder = tmp_path_factory.mktemp("messages")
    FAMILIES[0].save(folder / "model")
    (folder / "policy.toml").write_text(POLICY)
    fast = effc.optimize(folder / "model", spec=folder / "policy.toml")
    fast.save(folder / "out")
    (folder / "policy.toml").unlink()
    return folder


@pytest.fixture
def work(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Path:
    """A copy of the folder, spoiled by the case."""
    folder = tmp_path / "work"
    shutil.copytree(prepared, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_message(
    name: str,
    work: Path,
    golden: Golden,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    case = CASES[name]
    if case.policy:
        (work / "policy.toml").write_text(case.policy)
    if case.spoil is not None:
        case.spoil(work)
    for variable, value in case.environment.items():
        monkeypatch.setenv(variable, value)
    before = _files(work)
    said = _said_in_python(case, capsys) if case.python else _said_by_command(case, capsys)
    assert "Traceback" not in said
    assert _files(work) == before, "a refusal leaves nothing behind"
    golden.check(f"{case.shown}\n{_stable(said, work)}")


def _said_by_command(case: Case, capsys: pytest.CaptureFixture[str]) -> str:
    """The error, without the verdicts and steps that came before it."""
    capsys.readouterr()
    code = main(case.arguments)
    out, err = capsys.readouterr()
    assert code == case.exit_code, err
    assert "error" not in out
    lines = err.splitlines()
    first = next(i for i, line in enumerate(lines) if re.search(r"error\[E", line))
    return "\n".join(lines[first:]) + "\n"


def _said_in_python(case: Case, capsys: pytest.CaptureFixture[str]) -> str:
    """What the last line raises, as the interpreter shows it."""
    names = {"effc": effc, "torch": torch, "ids": torch.tensor([[5, 6, 7]])}
    if "fast." in case.python:
        names["fast"] = effc.load("out")
    with pytest.raises(EffcError) as caught:
        exec(case.python, names)
    capsys.readouterr()
    return f"{type(caught.value).__name__}: {caught.value}\n"


def _files(folder: Path) -> list[str]:
    return sorted(os.path.relpath(path, folder) for path in folder.rglob("*"))


def _stable(text: str, folder: Path) -> str:
    text = text.replace(f"{folder}/", "")
    for pattern, replacement in FOREIGN:
        text = re.sub(pattern, replacement, text)
    return text


def test_names_are_unique() -> None:
    assert len(CASES) == sum(map(len, CHAPTERS.values()))


def test_no_golden_text_is_left_over() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == {golden(c).name for c in CASES.values()}


@pytest.mark.parametrize("name", CASES)
def test_a_message_has_a_code_and_says_what_to_do(name: str) -> None:
    """Place, code and reason always; a remedy wherever the reason does not give it away."""
    text = golden(CASES[name]).read_text(encoding="utf-8")
    codes = set(re.findall(r"error\[(E\d{4})\]: \S", text))
    assert codes <= set(CATALOGUE) - {"E0901"}, "no mistake of a user is an internal error"
    assert re.search(r"\nhelp: | takes | must be |, found ", text), text


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tests.messages --write"
