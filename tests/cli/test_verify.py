"""`effc verify` on a real artifact of a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from effc.cli import main
from effc.diagnostics import ExitCode
from tests.e2e.families import Family
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


def test_artifact_is_measured_against_its_model(
    artifact: Path, tiny_llama: Path, call: Call
) -> None:
    code, found = call("verify", artifact, "--against", tiny_llama)
    assert code == ExitCode.DONE, found
    quality = found["quality"]
    assert quality["text"]["tokens"] == 128
    assert 0 < quality["kl"]["mean"] < 0.1
    assert [gate["name"] for gate in quality["gates"]] == ["max_kl"]
    assert [entry["method"] for entry in quality["fired"]] == ["quantize rtn"]
    assert quality["time"] is None
    before, after = (quality["bytes"][name]["weights"] for name in ("original", "rewritten"))
    assert after < before / 2


def test_verify_says_what_compile_said(artifact: Path, tiny_llama: Path, call: Call) -> None:
    _, found = call("verify", artifact, "--against", tiny_llama)
    report = json.loads((artifact / "report.json").read_text())["quality"]
    for part in ("text", "kl", "perplexity", "top1", "greedy", "gates"):
        assert found["quality"][part] == report[part], part


def test_an_artifact_equals_itself(artifact: Path, call: Call) -> None:
    code, found = call("verify", artifact, "--against", artifact, "--tokens", 64, "--timing")
    assert code == ExitCode.DONE
    assert found["quality"]["kl"]["mean"] == 0.0
    assert set(found["quality"]["time"]) == {"prefill", "decode"}


def test_a_broken_gate_is_exit_code_three(
    artifact: Path, tiny_llama: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The policy of the artifact, with a narrower bound."""
    import effc.cli.opened as opened

    policy = opened.policy_of(artifact)
    assert policy is not None and policy.quality is not None
    object.__setattr__(policy.quality, "max_kl", 1e-9)
    monkeypatch.setattr(opened, "policy_of", lambda path: policy)
    code, found = call("verify", artifact, "--against", tiny_llama)
    assert code == ExitCode.GATE
    assert found["error"]["code"] == "E0408"
    assert "max_kl" in found["error"]["message"]
    assert found["quality"]["gates"][0]["held"] is False


def test_a_method_that_did_not_act_is_exit_code_three(
    artifact: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    import effc.cli.opened as opened
    from effc.evaluate.fired import MethodUse

    methods = [MethodUse("quantize", "rtn", ("model.layers.7.mlp.up_proj",))]
    monkeypatch.setattr(opened, "methods_of", lambda report: methods)
    code, found = call("verify", artifact, "--against", artifact)
    assert code == ExitCode.GATE
    assert "quantize rtn did not act" in found["error"]["message"]


def test_integrity_needs_no_model(artifact: Path, call: Call) -> None:
    code, found = call("verify", artifact, "--integrity")
    assert code == ExitCode.DONE
    assert found["integrity"]["tensors"] > 10
    assert "quality" not in found


def test_a_flipped_bit_is_found(artifact: Path, tmp_path: Path, call: Call) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(artifact, copy)
    content = bytearray((copy / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "weights.safetensors").write_bytes(content)
    code, found = call("verify", copy, "--integrity")
    assert code == ExitCode.INPUT
    assert found["error"]["code"] == "E0603"


def test_something_to_verify_must_be_named(artifact: Path, call: Call) -> None:
    code, found = call("verify", artifact)
    assert (code, found["error"]["code"]) == (ExitCode.INPUT, "E0101")


@pytest.mark.parametrize(
    ("options", "reason"),
    (
        ({"vocab_size": 211}, "vocabulary 199 and 211"),
        ({"max_position_embeddings": 64}, "context 96 and 64"),
    ),
)
def test_strangers_are_refused_with_the_reason(
    artifact: Path, tmp_path: Path, call: Call, options: dict[str, Any], reason: str
) -> None:
    Family("Llama", {"num_hidden_layers": 1} | options).save(tmp_path / "other")
    code, found = call("verify", artifact, "--against", tmp_path / "other")
    assert (code, found["error"]["code"]) == (ExitCode.INPUT, "E0101")
    assert reason in found["error"]["message"]


def test_text_for_people(
    artifact: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["verify", str(artifact), "--against", str(tiny_llama), "--integrity"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "are as they were written" in lines[0]
    names = [line[:18].rstrip() for line in lines[2:]]
    assert names == [
        "text", "KL divergence", "perplexity", "top-1 agreement", "greedy answers", "layers",
        "weights", "cache", "quantize rtn", "gate max_kl",
    ]  # fmt: skip
    assert max(map(len, lines)) < 180
