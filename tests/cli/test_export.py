"""`effc export`: what is written, said and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import effc
from effc.cli.app import main


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "out"
    module = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.ReLU()).eval()
    effc.optimize(module, example_inputs=(torch.randn(2, 16),)).save(out)
    return out


def test_what_was_written(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.pt2"
    assert main(["export", str(artifact), "--to", "pt2", "-o", str(path)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{path}: stage forward, ")
    assert "the artifact's weights take 544 B" in said.out
    x = torch.randn(3, 16)
    call = torch.export.load(path).module()
    assert torch.equal(call(input_=x), effc.load(artifact)(x))


def test_json(artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.pt2"
    assert main(["export", str(artifact), "--to", "pt2", "-o", str(path), "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["files"] == {"forward": str(path)}
    assert data["bytes"] == path.stat().st_size
    assert (data["format"], data["weights"], data["notes"]) == ("pt2", 544, [])


@pytest.mark.parametrize(
    ("arguments", "code"),
    (
        (["--to", "onnx", "--opset", "17"], "E0801"),
        (["--to", "tflite"], "E0801"),
        (["--to", "pt2", "--dialect", "torch"], "E0101"),
        (["--to", "mlir", "--dialect", "tosa"], "E0801"),
    ),
)
def test_refusals(
    arguments: list[str],
    code: str,
    artifact: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "m"
    assert main(["export", str(artifact), *arguments, "-o", str(path)]) == 2
    assert f"error[{code}]" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_kept(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "m.pt2"
    path.write_text("mine")
    command = ["export", str(artifact), "--to", "pt2", "-o", str(path)]
    assert main(command) == 2
    assert "error[E0102]" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert main([*command, "--force"]) == 0
    assert main(["export", str(tmp_path), "--to", "pt2", "-o", str(tmp_path / "x.pt2")]) == 2
    assert "error[E0601]" in capsys.readouterr().err
