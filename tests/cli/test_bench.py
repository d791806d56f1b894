"""`effc bench` on a real artifact of a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from effc.cli import main
from effc.diagnostics import ExitCode
from tests.evaluate.models import compiled

Call = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture(scope="module")
def artifact(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tiny_llama, tmp_path_factory.mktemp("verify") / "out")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Run a command with `--json`; its exit code and its one JSON object."""

    def run(*arguments: object) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = main([*map(str, arguments), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def test_bench_measures_speed_and_bytes(artifact: Path, call: Call) -> None:
    code, found = call("bench", artifact, "--prompt-tokens", 24, "--new-tokens", 8, "--rounds", 3)
    assert code == ExitCode.DONE
    assert (found["prompt_tokens"], found["new_tokens"], found["rounds"]) == (24, 8, 3)
    for part, work in (("prefill", 24), ("decode", 1)):
        speed = found[part]
        assert speed["per_s_low"] <= speed["per_s"] <= speed["per_s_high"]
        assert speed["per_s"] * speed["seconds"] == pytest.approx(work)
    # 2 layers x (key, value) x 2 heads x 16 wide x 32 tokens (one page), fp32.
    assert found["bytes"]["cache"] == 2 * 2 * 2 * 16 * 32 * 4
    assert found["bytes"]["read_per_step"] <= found["bytes"]["weights"]
    bound = found["bound"]
    expected = bound["bandwidth"] / found["bytes"]["read_per_step"]
    assert bound["per_s"] == pytest.approx(expected)
    assert found["peak_memory"] > 1 << 20


def test_bench_takes_turns_with_another_model(
    artifact: Path, tiny_llama: Path, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("--prompt-tokens", 8, "--new-tokens", 2, "--rounds", 2)
    code, found = call("bench", artifact, "--against", tiny_llama, *small)
    assert code == ExitCode.DONE
    assert found["time"]["decode"]["rounds"] == 2
    assert found["against_bytes"]["weights"] > found["bytes"]["weights"]
    assert main(["bench", str(artifact), "--against", str(artifact), *map(str, small)]) == 0
    assert "taking turns" in capsys.readouterr().out


def test_bench_stays_within_the_context(artifact: Path, call: Call) -> None:
    code, found = call("bench", artifact, "--prompt-tokens", 90, "--new-tokens", 7)
    assert (code, found["error"]["code"]) == (ExitCode.INPUT, "E0701")
    code, found = call("bench", artifact, "--rounds", 1)
    assert code == ExitCode.DONE
    assert found["prompt_tokens"] + found["new_tokens"] <= 96
