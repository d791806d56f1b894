"""`effc plan`: the text, the JSON, and where it stops."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from effc.cli.app import main
from effc.cli.plan_text import WIDTH, layers_text

POLICY = """version = 1

[target]
context = 128
batch = 2
memory = "1 MiB"

[[quantize]]
where = "linear or embedding"
method = "rtn"
bits = 4

[[quantize]]
where = "linear and layer == 0"
method = "rtn"
bits = 8
group = 64

[[kv]]
where = "attention and layer >= 1"
store = { method = "int8" }
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    return path


def test_the_text(tiny_llama: Path, spec: Path, golden: Any, capsys: Any, monkeypatch: Any) -> None:
    """Rules, steps, what is left alone, bytes, stages, peak; the same on every machine."""
    monkeypatch.chdir(spec.parent)
    Path("model").symlink_to(tiny_llama)
    assert main(["plan", "model", "--spec", spec.name, "--no-measure-machine"]) == 0
    text = capsys.readouterr().out
    golden.check(text)
    assert all(len(line) <= WIDTH for line in text.splitlines())


def test_nothing_asked_for(tiny_llama: Path, capsys: Any) -> None:
    assert main(["plan", str(tiny_llama), "--no-measure-machine"]) == 0
    text = capsys.readouterr().out
    assert "none: nothing is compressed" in text and "\nsteps\n" not in text


def test_json_holds_the_whole_plan(tiny_llama: Path, spec: Path, capsys: Any) -> None:
    assert main(["plan", str(tiny_llama), "--spec", str(spec), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["model"]["family"] == "llama" and data["model"]["sites"] == 23
    assert [rule["applied"] for rule in data["rules"]] == [9, 7, 1]
    assert [rule["overridden"] for rule in data["rules"]] == [7, 0, 0]
    assert {step["method"] for step in data["steps"]} == {"rtn", "int8"}
    assert "measured on this machine" in data["prediction"]["machine"]["source"]
    assert data["prediction"]["sizes"] == {"context": 128, "batch": 2, "prompt": 128}


def test_a_plan_for_a_device_that_is_not_here(tiny_llama: Path, spec: Path, capsys: Any) -> None:
    flags = ["--spec", str(spec), "--set", 'target.device="cuda:sm90"', "--json"]
    assert main(["plan", str(tiny_llama), *flags]) == 0
    machine = json.loads(capsys.readouterr().out)["prediction"]["machine"]
    assert machine["name"] == "H100-SXM5-80GB"


@pytest.mark.parametrize(
    ("change", "code", "exit_code"),
    (
        ('target.memory="100 KiB"', "E0411", 2),
        ('quantize.0.where="layer == 9"', "E0401", 4),
    ),
)
def test_a_plan_that_cannot_be(
    change: str, code: str, exit_code: int, tiny_llama: Path, spec: Path, capsys: Any
) -> None:
    assert main(["plan", str(tiny_llama), "--spec", str(spec), "--set", change]) == exit_code
    assert f"error[{code}]" in capsys.readouterr().err


def test_a_forbidden_pair(tiny_llama: Path, spec: Path, capsys: Any) -> None:
    flags = ["--set", 'target.device="cuda"', "--set", 'quantize.0.activations="int8"']
    assert main(["plan", str(tiny_llama), "--spec", str(spec), *flags]) == 2
    error = capsys.readouterr().err
    assert "error[E0211]" in error and "target.allow_reference" in error


def test_a_dry_run_prints_the_same(tiny_llama: Path, spec: Path, capsys: Any) -> None:
    def steady(text: str) -> str:
        """The text without what this machine's speed decides."""
        text = re.sub(r"machine: .*?\n\n", "", text, flags=re.DOTALL)
        return "\n".join(line.rpartition("  ")[0] or line for line in text.splitlines())

    assert main(["plan", str(tiny_llama), "--spec", str(spec)]) == 0
    plan = steady(capsys.readouterr().out)
    assert main(["compile", str(tiny_llama), "--spec", str(spec), "--dry-run"]) == 0
    rows = steady(capsys.readouterr().out)
    assert plan.partition("\nstages")[0] in rows


@pytest.mark.parametrize(
    ("layers", "text"),
    (([], "-"), ([None], "-"), ([3], "3"), ([0, 1, 2], "0-2"), ([5, 0, 1, 7, None], "0-1, 5, 7")),
)
def test_layers_as_ranges(layers: list[int | None], text: str) -> None:
    assert layers_text(layers) == text
