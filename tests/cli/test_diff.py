"""`effc diff`: what differs between two artifacts, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from effc.cli import main
from effc.difference import changes, compare

EIGHT = 'version = 1\n\n[[quantize]]\nwhere = "linear"\nmethod = "rtn"\nbits = 8\n'
LAYER = EIGHT.replace('"linear"', '"linear and layer == 1"')


@pytest.fixture(scope="module")
def artifacts(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Artifacts `eight`, `again` (the same), `layer` (another policy) of one checkpoint."""
    folder = tmp_path_factory.mktemp("artifacts")
    for name, policy in (("eight", EIGHT), ("again", EIGHT), ("layer", LAYER)):
        (folder / f"{name}.toml").write_text(policy)
        arguments = [str(tiny_llama), "--spec", str(folder / f"{name}.toml")]
        assert main(["compile", *arguments, "-o", str(folder / name)]) == 0
    return folder


@pytest.fixture
def different(artifacts: Path) -> dict[str, Any]:
    return compare(artifacts / "eight", artifacts / "layer", text=True)


def test_equal_artifacts_do_not_differ(artifacts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(artifacts / "eight", artifacts / "again")["equal"]
    capsys.readouterr()
    assert main(["diff", str(artifacts / "eight"), str(artifacts / "again")]) == 0
    assert capsys.readouterr().out == "no differences\n"


def test_the_policy_is_compared_by_line(different: dict[str, Any]) -> None:
    changed = [
        line for line in different["policy"] if line[0] in "+-" and line[1:3] not in ("--", "++")
    ]
    assert changed == ['-where = "linear"', '+where = "linear and layer == 1"']


def test_operators_are_counted(different: dict[str, Any]) -> None:
    """Two layers of seven linears and a head: eight of fifteen stay as they were."""
    stage = different["stages"]["decode"]
    assert stage["in"] == "both"
    assert stage["operators"] == [
        {"what": "effc.quantized_linear.default", "a": 15, "b": 7},
        {"what": "aten.linear.default", "a": None, "b": 8},
    ]
    body = [line for line in stage["text"] if not line.startswith(("---", "+++"))]
    assert stage["lines"] == {s: sum(x[0] == c for x in body) for s, c in (("a", "-"), ("b", "+"))}


def test_weights_are_compared_by_name_form_and_values(
    artifacts: Path, different: dict[str, Any]
) -> None:
    weights = different["weights"]
    assert not weights["changed"]  # what both hold, they hold alike
    names = {side: {t["name"] for t in weights[f"only_{side}"]} for side in "ab"}
    assert "model.layers.0.mlp.up_proj.weight.codes" in names["a"]
    assert "model.layers.0.mlp.up_proj.weight" in names["b"]
    assert not any(".layers.1." in name for side in names.values() for name in side)
    for side, name in (("a", "eight"), ("b", "layer")):
        manifest = json.loads((artifacts / name / "effc.json").read_text())
        header = manifest["weights"]["header"]["bytes"]
        size = (artifacts / name / "weights.safetensors").stat().st_size
        assert weights["bytes"][side] == size - header


def test_kernels_and_figures_are_compared(different: dict[str, Any]) -> None:
    kernel = "decode.effc.quantized_linear.default.reference"
    assert {"what": kernel, "a": 15, "b": 7} in different["kernels"]
    (size,) = (f for f in different["figures"] if f["what"] == "bytes of weights")
    assert size["a"] < size["b"]


def test_the_text_names_every_section(artifacts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", str(artifacts / "eight"), str(artifacts / "layer")]) == 0
    said = capsys.readouterr().out
    for words in ("\npolicy\n", "stage decode", "calls in a", "only in a: ", "only in b: "):
        assert words in said
    assert "torch.ops" not in said
    assert main(["diff", str(artifacts / "eight"), str(artifacts / "layer"), "--text"]) == 0
    assert "torch.ops.effc.quantized_linear" in capsys.readouterr().out


def test_weights_are_never_loaded(artifacts: Path, tmp_path: Path) -> None:
    for name in ("eight", "layer"):
        shutil.copytree(artifacts / name, tmp_path / name)
        (tmp_path / name / "weights.safetensors").unlink()
    assert compare(tmp_path / "eight", tmp_path / "layer")["weights"]


@pytest.mark.parametrize(
    ("which", "code", "words"),
    (
        ("eight.toml", "E0601", "two artifacts are compared"),
        ("nowhere", "E0601", "there is no such folder"),
    ),
)
def test_only_artifacts_are_compared(
    which: str, code: str, words: str, artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["diff", str(artifacts / "eight"), str(artifacts / which)]) == 2
    said = capsys.readouterr().err
    assert f"error[{code}]" in said and words in said


def test_a_damaged_artifact_is_refused(
    artifacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(artifacts / "eight", tmp_path / "out")
    stage = tmp_path / "out" / "stages" / "decode.json"
    stage.write_text(stage.read_text().replace("rms_norm", "rms_nurm", 1))
    assert main(["diff", str(tmp_path / "out"), str(artifacts / "eight")]) == 2
    assert "E0603" in capsys.readouterr().err


def test_changes_of_nested_mappings() -> None:
    a = {"x": {"y": 1, "z": [1, 2]}, "list": [{"n": 1}, {"n": 2}], "gone": 0}
    b = {"x": {"y": 1, "z": [1, 3]}, "list": [{"n": 1}], "new": {"k": "v"}}
    assert changes(a, b) == [
        {"what": "x.z", "a": [1, 2], "b": [1, 3]},
        {"what": "list[1].n", "a": 2, "b": None},
        {"what": "gone", "a": 0, "b": None},
        {"what": "new.k", "a": None, "b": "v"},
    ]
    assert changes(a, a) == []
