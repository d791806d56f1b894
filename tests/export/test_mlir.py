"""MLIR files: they parse again, need nothing of effc, and compute the same where linalg runs."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import effc
from effc.diagnostics import ExportError
from effc.export import dense
from effc.export.formats import export_program, exporter
from effc.export.mlir import Mlir
from tests.export.dense_steps import greedy
from tests.programs import decoder, example_ids

needs_torch_mlir = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("torch_mlir") is None,
    reason="torch-mlir is not installed (the extra mlir)",
)
FOUR_BIT = {"where": "linear or embedding", "method": "rtn", "bits": 4, "group": 16}


@pytest.fixture(scope="module")
def fast() -> effc.CompiledModel:
    """Two layers, one with a window; every matrix in 4 bits."""
    spec = {"version": 1, "target": {"context": 64}, "quantize": [FOUR_BIT]}
    return effc.optimize(decoder(4), spec, example_inputs=example_ids())


@needs_torch_mlir
def test_torch_dialect_parses_again(fast: effc.CompiledModel, tmp_path: Path) -> None:
    from tests.export.mlir_runner import parse

    path = tmp_path / "m.mlir"
    export_program(fast.program, path, "mlir")
    text = path.read_text()
    module = parse(text)
    assert str(module) == text
    assert "func.func @decode(%arg0: !torch.vtensor<[?,?],si64>" in text
    assert "effc" not in text
    assert "torch.operator" not in text


@needs_torch_mlir
@pytest.mark.slow
def test_linalg_generates_the_same_tokens(fast: effc.CompiledModel, tmp_path: Path) -> None:
    """Prefill and steps, on MLIR's own compiler."""
    from tests.export.mlir_runner import Function

    path = tmp_path / "m.mlir"
    export_program(fast.program, path, "mlir", dialect="linalg")
    text = path.read_text()
    assert not re.search(r"= \"?torch\.", text)
    planes = dense.plane_specs(fast.program)
    results = [(torch.float32, 3), (torch.int64, 1), *((s.dtype, 4) for s in planes.values())]
    function = Function(text, "decode", results)

    def call(past: dict[str, Tensor], **named: Tensor) -> Any:
        logits, lengths, *after = function(*named.values(), *past.values())
        return logits, lengths, dict(zip(past, after, strict=True))

    for batch, tokens in ((1, 9), (3, 4)):
        ids = torch.randint(0, 23, (batch, tokens))
        expected = fast.generate(ids, max_new_tokens=6)
        assert torch.equal(greedy(call, fast.program, ids, 6), expected)


class Reshaping(nn.Module):
    """Merges dimensions that torch-mlir would take for constants."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(16, 6)

    def forward(self, x: Tensor) -> Tensor:
        y = (x + 1).reshape(-1, 16)
        return self.inner(y).reshape(x.shape[0], x.shape[1], 3, 2)


@needs_torch_mlir
def test_merged_dimensions_keep_their_sizes() -> None:
    from tests.export.mlir_runner import Function

    T = torch.export.Dim("T", min=1)
    module = Reshaping().eval()
    shapes = {"x": {0: torch.export.Dim("B", min=1), 1: T}}
    fast = effc.optimize(module, example_inputs=(torch.randn(2, 5, 16),), dynamic_shapes=shapes)
    text = Mlir("linalg").text(fast.program, fast.program.stages["forward"])
    function = Function(text, "forward", [(torch.float32, 4)])
    for size in ((1, 1, 16), (3, 4, 16), (1, 7, 16)):
        x = torch.randn(size)
        torch.testing.assert_close(function(x)[0], module(x), rtol=1e-5, atol=1e-6)


class Inverse(nn.Module):
    """An operator that has no lowering."""

    def forward(self, x: Tensor) -> Tensor:
        return x.erfinv() * 2


@needs_torch_mlir
def test_what_does_not_legalize_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    fast = effc.optimize(Inverse().eval(), example_inputs=(torch.rand(2, 3),))
    stage = fast.program.stages["forward"]
    with pytest.raises(ExportError, match=r"(?s)E0801.*erfinv does not legalize.*--dialect torch"):
        Mlir("linalg").text(fast.program, stage)
    assert "erfinv" in Mlir("torch").text(fast.program, stage)
    assert capfd.readouterr().err == ""


def test_without_torch_mlir(
    fast: effc.CompiledModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch_mlir", None)
    with pytest.raises(ExportError, match=r"E0801.*is not installed\nhelp: pip install 'effc.mlir"):
        export_program(fast.program, tmp_path / "m.mlir", "mlir")
    assert not list(tmp_path.iterdir())


def test_unknown_dialect() -> None:
    with pytest.raises(ExportError, match="(?s)E0801.*no dialect 'linalgg'.*did you mean 'linalg'"):
        exporter("mlir", dialect="linalgg")
