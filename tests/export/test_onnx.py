"""What stands in an exported ONNX file, which files there are, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
import transformers
from torch import nn

import effc
from effc.diagnostics import ArtifactError, ExportError
from effc.export.onnx import files
from effc.export.onnx.exporter import Onnx
from effc.settings import version
from tests.conftest import Golden
from tests.e2e.families import Family
from tests.export.onnx_steps import session

DOMAINS = {"", "com.microsoft"}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> effc.CompiledModel:
    """One layer, tied table, 4 bits, an end of answers."""
    folder = tmp_path_factory.mktemp("onnx") / "model"
    options = {"num_hidden_layers": 1, "tie_word_embeddings": True, "eos_token_id": 3}
    Family("Llama", options).save(folder)
    rule = {"where": "linear or embedding", "method": "rtn", "bits": 4}
    return effc.optimize(folder, {"version": 1, "quantize": [rule]})


@pytest.fixture(scope="module")
def exported(llama: effc.CompiledModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "m.onnx"
    llama.export(path)
    return path


def shape(value: ir.Value) -> list[Any]:
    return [d if isinstance(d, int) else str(d) for d in value.shape or ()]


def test_names_and_sizes_of_the_ecosystem(exported: Path) -> None:
    graph = ir.load(exported).graph
    B, T, P, S = (f"{n}_{k}" for n, k in (("batch", "size"), ("sequence", "length"),
                  ("past_sequence", "length"), ("total_sequence", "length")))  # fmt: skip
    assert {v.name: shape(v) for v in graph.inputs} == {
        "input_ids": [B, T],
        "attention_mask": [B, S],
        "past_key_values.0.key": [B, 2, P, 16],
        "past_key_values.0.value": [B, 2, P, 16],
    }
    assert {v.name: shape(v) for v in graph.outputs} == {
        "logits": [B, T, 199],
        "present.0.key": [B, 2, S, 16],
        "present.0.value": [B, 2, S, 16],
    }


@pytest.mark.parametrize("dialect", ("ort", "standard"))
def test_nodes_of_one_layer(
    dialect: str, llama: effc.CompiledModel, tmp_path: Path, golden: Golden
) -> None:
    llama.export(tmp_path / "m.onnx", dialect=dialect)
    lines = []
    for node in ir.load(tmp_path / "m.onnx").graph:
        inputs = ", ".join("-" if x is None else str(x.name) for x in node.inputs)
        lines.append(f"{node.domain or 'onnx'}.{node.op_type}({inputs}) -> {node.name}")
    golden.check("\n".join(lines))


def test_a_tied_table_is_held_once(exported: Path) -> None:
    graph = ir.load(exported).graph
    readers = {
        node.op_type for node in graph for x in node.inputs if x is not None
        if x.name and x.name.startswith("model.embed_tokens.weight.codes")
    }  # fmt: skip
    assert readers == {"GatherBlockQuantized", "MatMulNBits"}
    tables = [name for name in graph.initializers if "embed_tokens.weight.codes" in name]
    assert len(tables) == 1


@pytest.mark.parametrize(("dialect", "opset"), (("ort", 18), ("standard", 24), ("standard", 26)))
def test_the_opset_asked_for(
    dialect: str, opset: int, llama: effc.CompiledModel, tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    llama.export(path, dialect=dialect, opset=opset)
    model = onnx.load(path)
    versions = {entry.domain: entry.version for entry in model.opset_import}
    assert versions[""] == opset
    assert versions.keys() <= DOMAINS and not model.functions
    assert ("com.microsoft" in versions) == (dialect == "ort")
    session(path)
    if dialect == "standard":
        onnx.checker.check_model(str(path), full_check=True)


def test_metadata(exported: Path) -> None:
    model = ir.load(exported)
    assert (model.producer_name, model.producer_version) == ("effc", version())
    assert model.metadata_props == {
        "effc.family": "llama",
        "effc.stage": "decode",
        "effc.dialect": "ort",
        "effc.context": "256",
        "effc.vocabulary": "199",
        "effc.eos": "3",
        "effc.padding": "right",
    }


def test_weights_beside_the_model(llama: effc.CompiledModel, tmp_path: Path) -> None:
    path, data, other = (tmp_path / name for name in ("m.onnx", "m.onnx.data", "m.onnx.1.data"))
    llama.export(path, external_data=True)
    first = path.read_bytes()
    assert {p.name for p in tmp_path.iterdir()} == {"m.onnx", "m.onnx.data"}
    held = data.stat().st_size
    assert held > llama.program.weights.nbytes // 2 > path.stat().st_size // 4
    session(path)
    with pytest.raises(ArtifactError, match="E0102"):
        llama.export(path, external_data=True)
    llama.export(path, external_data=True, force=True)
    assert {p.name for p in tmp_path.iterdir()} == {path.name, other.name}
    assert path.read_bytes() != first
    session(path)
    llama.export(path, external_data=False, force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
    session(path)


def test_large_weights_go_beside_it_by_themselves(
    llama: effc.CompiledModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "EXTERNAL_BYTES", 1000)
    llama.export(tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx.data").exists()


def test_a_failed_write_leaves_what_was_there(
    llama: effc.CompiledModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.onnx"
    llama.export(path, external_data=True)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.ir, "save", full)
    with pytest.raises(ArtifactError, match="E0103"):
        llama.export(path, external_data=True, force=True)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_folder_for_onnxruntime_genai(llama: effc.CompiledModel, tmp_path: Path) -> None:
    llama.export(tmp_path / "model.onnx", genai_config=True)
    data = json.loads((tmp_path / "genai_config.json").read_text())
    decoder = data["model"]["decoder"]
    assert decoder["filename"] == "model.onnx"
    assert (decoder["num_attention_heads"], decoder["num_key_value_heads"]) == (4, 2)
    assert (decoder["head_size"], decoder["hidden_size"]) == (16, 64)
    assert (data["model"]["eos_token_id"], data["model"]["context_length"]) == (3, 256)
    assert data["search"]["past_present_share_buffer"]
    assert {*llama.program.info.files} < {p.name for p in tmp_path.iterdir()}
    with pytest.raises(ArtifactError, match="E0102"):
        llama.export(tmp_path / "other.onnx", genai_config=True)


class Pair(nn.Module):
    """A convolution over inputs of any height, and two results."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, 2)

    def forward(self, image: torch.Tensor, input: torch.Tensor) -> dict[str, torch.Tensor]:
        features = torch.relu(self.conv(image)).mean((2, 3))
        return {"scores": self.head(features) + input, "features": features}


@pytest.mark.parametrize("dialect", ("ort", "standard"))
def test_a_module_keeps_its_names_and_sizes(dialect: str, tmp_path: Path) -> None:
    fast = effc.optimize(Pair().eval(), example_inputs=(torch.randn(2, 3, 8, 8), torch.randn(2, 2)))
    fast.export(tmp_path / "m.onnx", dialect=dialect)
    run = session(tmp_path / "m.onnx")
    assert [spec.name for spec in run.get_inputs()] == ["image", "input"]
    for batch in (1, 5):
        image, offset = torch.randn(batch, 3, 8, 8), torch.randn(batch, 2)
        found = run.run(["scores", "features"], {"image": image.numpy(), "input": offset.numpy()})
        exact = fast(image=image, input=offset)
        for ours, theirs in zip(found, (exact.scores, exact.features), strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("bert")
    config = transformers.BertConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        vocab_size=199, max_position_embeddings=64,
    )  # fmt: skip
    transformers.BertModel(config).eval().save_pretrained(folder)
    yield folder


@pytest.mark.parametrize(
    ("bits", "dialect", "opset"),
    ((0, "ort", None), (4, "ort", None), (4, "standard", None), (0, "standard", 18)),
)
def test_an_encoder(bits: int, dialect: str, opset: int | None, bert: Path, tmp_path: Path) -> None:
    rule = {"where": "linear or embedding", "method": "rtn", "bits": 4, "activations": "source"}
    fast = effc.optimize(bert, {"version": 1, "quantize": [rule] if bits else []})
    fast.export(tmp_path / "m.onnx", dialect=dialect, opset=opset)
    run = session(tmp_path / "m.onnx")
    for batch, tokens in ((1, 9), (3, 13)):
        mask = torch.ones(batch, tokens, dtype=torch.int64)
        mask[-1, tokens - 3 :] = 0
        given = {
            "input_ids": torch.randint(0, 199, (batch, tokens)),
            "attention_mask": mask,
            "token_type_ids": torch.randint(0, 2, (batch, tokens)),
        }
        found = run.run(["last_hidden_state"], {k: v.numpy() for k, v in given.items()})[0]
        exact = fast(**given).last_hidden_state
        np.testing.assert_allclose(found, exact.numpy(), rtol=0, atol=1e-5)


def test_a_cache_of_codes_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    rule = {"where": "attention", "store": {"method": "int8"}}
    fast = effc.optimize(tiny_llama, {"version": 1, "kv": [rule]})
    with pytest.raises(ExportError, match="E0801.*keeps keys and values as they are.*int8"):
        fast.export(tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_bfloat16_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    fast = effc.optimize(tiny_llama, {"version": 1, "target": {"dtype": "bfloat16"}})
    with pytest.raises(ExportError, match="E0801.*bfloat16"):
        fast.export(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("options", "message"),
    (
        ({"dialect": "onnx"}, "there is no dialect 'onnx'"),
        ({"opset": 17}, "opset 17 is not written; 18 to 26 are"),
        ({"opset": 99}, "opset 99 is not written; 18 to 26 are"),
    ),
)
def test_options_that_do_not_exist(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ExportError, match=f"E0801.*{message}"):
        Onnx(**options)


def test_too_low_an_opset_for_packed_weights(llama: effc.CompiledModel, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="E0801.*opset 20 has no operator") as caught:
        llama.export(tmp_path / "m.onnx", dialect="standard", opset=20)
    assert "21 is the lowest" in str(caught.value.help)


def test_a_module_is_nothing_to_generate_with(tmp_path: Path) -> None:
    fast = effc.optimize(nn.Linear(4, 4).eval(), example_inputs=(torch.randn(2, 4),))
    with pytest.raises(ExportError, match="E0801.*is no decoder"):
        fast.export(tmp_path / "m.onnx", genai_config=True)


@pytest.mark.parametrize("package", ("onnx", "onnx_ir", "onnxscript"))
def test_a_missing_package(
    package: str, llama: effc.CompiledModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=f"E0801.*needs {package}, which is not") as caught:
        llama.export(tmp_path / "m.onnx")
    assert caught.value.help == "pip install 'effc[onnx]'"
