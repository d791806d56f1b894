"""`effc check` and `effc schema`: the flags of a policy, and what is printed of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from effc.cli import main

TEXT = """\
version = 1
[[quantize]]
where = "linear"
method = "rtn"
bits = 8
gate = "revert"
[[kv]]
where = "attention"
optional = true
store = { method = "int8" }
[quality]
max_kl = 0.25
"""


@pytest.fixture
def policy(tmp_path: Path) -> str:
    path = tmp_path / "p.toml"
    path.write_text(TEXT)
    return str(path)


def test_rules_gates_and_stores_are_shown(policy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", policy]) == 0
    assert capsys.readouterr().out == (
        f"{policy}: valid, 2 rules\n"
        "  quantize: rtn where linear, bits = 8, gate: revert\n"
        "  kv: store int8 where attention, optional\n"
        "  quality: max_kl = 0.25\n"
    )


def test_the_same_as_json(policy: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", policy, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["valid"] and data["bounds"] == {"max_kl": 0.25}
    quantize, kv = data["rules"]
    assert quantize["gate"] == "revert"
    assert quantize["choices"] == {"quantize": {"method": "rtn", "options": {"bits": 8}}}
    assert (kv["method"], kv["optional"]) == ("", True)
    assert kv["choices"] == {"store": {"method": "int8", "options": {}}}


def test_presets_come_before_and_keys_after(
    policy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--preset", "int4", "--preset", "gated", "--set", "quantize.1.bits=4"]
    assert main(["check", policy, *flags, "--set", "quality.max_kl=1"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  quantize: rtn where linear or embedding, bits = 4, group = 32",
        "  quantize: rtn where linear, bits = 4, gate: revert",
        "  kv: store int8 where attention, optional",
        "  quality: max_kl = 1, max_perplexity_ratio = 1.05, min_top1 = 0.9",
    ]


def test_a_wrong_key_is_refused_at_its_flag(
    policy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", policy, "--set", "target.contex=3", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], error["where"]) == ("E0202", "--set target.contex=3")


def test_measuring_without_bounds_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.toml"
    path.write_text("version = 1\n[quality]\n")
    assert main(["check", str(path)]) == 0
    assert capsys.readouterr().out == (
        f"{path}: valid, 0 rules\n  quality: measured, without bounds\n"
    )


def test_schema_goes_to_stdout_or_to_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["schema"]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed)["title"] == "effc policy"
    path = tmp_path / "s.json"
    assert main(["schema", "-o", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: begin a policy beside it with '#:schema s.json'\n"
    assert path.read_text() == printed
    assert main(["schema", "-o", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"output": str(path)}


def test_schema_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "-o", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"{tmp_path}: error[E0103]: the schema cannot be written: Is a directory\n"
        "help: name a file\n"
    )
