"""`effc show` on a real artifact."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import fx

from effc.cli import main
from effc.export.package import write_artifact
from effc.ir.program import InputSpec, ModelInfo, Program, Stage
from effc.ir.weights import Weight, Weights


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    graph = fx.Graph()
    x = graph.placeholder("x")
    weight = graph.create_node("get_attr", "w", name="w")
    y = graph.call_function(torch.ops.aten.linear.default, (x, weight))
    y.meta["kernel"] = "reference"
    graph.output((y,))
    stage = Stage("forward", graph, (InputSpec("x", torch.float32, ("B", 4)),), ("y",))
    weights = Weights({"w": Weight.of(torch.zeros(2, 4))})
    program = Program({"forward": stage}, weights, ModelInfo("toy", "a module"))
    out = tmp_path_factory.mktemp("show") / "out"
    write_artifact(program, out, policy_text=None, lock={}, report={}, force=False)
    return out


def test_show_says_what_is_inside(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(artifact)]) == 0
    text = capsys.readouterr().out
    assert "weights: 32 B in 1 tensors (32 B float32)" in text
    assert "stage forward: 4 nodes" in text
    assert "[B, 4]" in text
    assert "kernels: reference 1x" in text


def test_the_printed_program_runs(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(artifact), "--stage", "forward", "--text"]) == 0
    namespace = {"torch": torch}
    exec(capsys.readouterr().out, namespace)
    (result,) = namespace["forward"]({"w": torch.ones(2, 4)}, torch.ones(3, 4))  # type: ignore[operator]
    assert result.tolist() == [[4.0, 4.0]] * 3


def test_show_as_json(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(artifact), "--json", "--text"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["operators"] == {"forward": {"aten.linear.default": 1}}
    assert data["weights"] == {"bytes": 32, "by_dtype": {"float32": 32}}
    assert "linear" in data["text"]["forward"]


def test_an_unknown_stage_is_refused(artifact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(artifact), "--stage", "forwrad"]) == 2
    assert "did you mean 'forward'" in capsys.readouterr().err


def test_a_folder_that_is_no_artifact_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", str(tmp_path), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "E0601"
