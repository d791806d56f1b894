"""Reading artifacts: every damage is found, wherever it is, and named."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from effc.diagnostics import ArtifactError
from effc.export.package import write_artifact
from effc.ir.manifest import encode, sha256
from effc.ir.program import Program
from effc.runtime.loader import check_integrity, load_program


@pytest.fixture
def artifact(program: Program, tmp_path: Path) -> Path:
    out = tmp_path / "out"
    write_artifact(program, out, policy_text="version = 1\n", lock={}, report={}, force=False)
    return out


def _refused(artifact: Path, code: str) -> ArtifactError:
    with pytest.raises(ArtifactError) as caught:
        check_integrity(artifact)
    assert caught.value.code == code, caught.value
    return caught.value


def _rewrite(artifact: Path, **changes: object) -> None:
    """Change the manifest as someone would who knows the format."""
    data = json.loads((artifact / "effc.json").read_bytes()) | changes
    data.pop("digest")
    (artifact / "effc.json").write_bytes(encode(data | {"digest": sha256(encode(data))}))


FILES = (
    "effc.json",
    "model/config.json",
    "model/tokenizer.json",
    "policy.lock",
    "policy.toml",
    "report.json",
    "stages/decode.json",
    "weights.safetensors",
)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found_anywhere(artifact: Path, name: str) -> None:
    original = (artifact / name).read_bytes()
    draw = random.Random(name)
    places = {0, len(original) - 1, *(draw.randrange(len(original)) for _ in range(40))}
    for place in places:
        damaged = bytearray(original)
        damaged[place] ^= 1 << draw.randrange(8)
        (artifact / name).write_bytes(damaged)
        with pytest.raises(ArtifactError) as caught:
            check_integrity(artifact)
        assert caught.value.code in ("E0601", "E0602", "E0603"), place
        assert name in str(caught.value.where)
    (artifact / name).write_bytes(original)
    check_integrity(artifact)


@pytest.mark.parametrize("name", FILES)
def test_a_cut_file_is_found(artifact: Path, name: str) -> None:
    content = (artifact / name).read_bytes()
    for kept in (0, 1, len(content) // 2, len(content) - 1):
        (artifact / name).write_bytes(content[:kept])
        with pytest.raises(ArtifactError) as caught:
            check_integrity(artifact)
        assert caught.value.code in ("E0601", "E0603")
        assert name in str(caught.value.where)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found(artifact: Path, name: str) -> None:
    (artifact / name).unlink()
    _refused(artifact, "E0601" if name == "effc.json" else "E0603")


def test_a_damaged_tensor_is_named_when_touched_and_not_before(artifact: Path) -> None:
    path = artifact / "weights.safetensors"
    header = int.from_bytes(path.read_bytes()[:8], "little") + 8
    entries = json.loads(path.read_bytes()[8:header])
    content = bytearray(path.read_bytes())
    content[header + entries["half"]["data_offsets"][0]] ^= 1
    path.write_bytes(content)
    program = load_program(artifact)
    program.weights["brain"].load()
    for _ in range(2):  # it does not become good by being asked again
        with pytest.raises(ArtifactError, match=r"weights\.safetensors: half.*E0603"):
            program.weights["half"].load()


def test_a_folder_that_is_no_artifact(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(ArtifactError, match=r"E0601.*no effc artifact"):
            load_program(folder)
    (tmp_path / "effc.json").write_text('{"kind": "other"}')
    with pytest.raises(ArtifactError, match="E0601"):
        load_program(tmp_path)


def test_a_newer_format_names_both_versions(artifact: Path) -> None:
    _rewrite(artifact, format=9, versions={"effc": "7.1"}, novelty=True)
    error = _refused(artifact, "E0602")
    assert "format 9 (made by effc 7.1)" in error.message
    assert "up to 1" in error.message


@pytest.mark.parametrize(
    "changes",
    [
        {"surprise": 1},
        {"page_size": 0},
        {"page_size": True},
        {"loop": "forever"},
        {"device": "tpu"},
        {"stages": []},
        {"stages": [{"name": "../../etc/passwd"}]},
        {"stages": [{"name": "decode", "inputs": [], "outputs": ["logits", "k0"]}]},
        {"files": {"../evil": {"bytes": 1, "sha256": "0" * 64}}},
        {"files": {}},
        {"cache": {"sites": [{"index": 0}], "groups": []}},
        {"schedule": [{"when": "never", "action": "x", "arguments": {}}]},
        {"schedule": [{"when": "every", "action": "os.system", "arguments": {}}]},
        {"model": {}},
        {"notes": "text"},
        {"weights": {"header": {"bytes": 1, "sha256": "0" * 64}, "ties": {}, "tensors": {}}},
    ],
    ids=str,
)
def test_a_forged_manifest_is_refused(artifact: Path, changes: dict[str, object]) -> None:
    _rewrite(artifact, **changes)
    _refused(artifact, "E0603")


def test_a_forged_operator_is_refused(artifact: Path) -> None:
    stage = artifact / "stages/decode.json"
    text = stage.read_bytes().replace(b"aten.linear.default", b"aten.from_file.default")
    stage.write_bytes(text)
    files = json.loads((artifact / "effc.json").read_bytes())["files"]
    files["stages/decode.json"] = {"bytes": len(text), "sha256": sha256(text)}
    _rewrite(artifact, files=files)
    assert "from_file" in _refused(artifact, "E0604").message


def test_a_forged_tensor_table_is_refused(artifact: Path) -> None:
    weights = json.loads((artifact / "effc.json").read_bytes())["weights"]
    tensors = weights["tensors"]
    for change in (
        {k: v for k, v in tensors.items() if k != "model.embed.weight"},
        tensors | {"more": tensors["half"]},
        tensors | {"half": tensors["half"] | {"shape": [5, 3]}},
        tensors | {"half": tensors["half"] | {"dtype": "int16"}},
        tensors | {"half": tensors["half"] | {"shape": [-15, -1]}},
        tensors | {"half": tensors["half"] | {"sha256": "no"}},
    ):
        _rewrite(artifact, weights=weights | {"tensors": change})
        _refused(artifact, "E0603")


def test_loading_needs_neither_transformers_nor_tokenizers(artifact: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('transformers', 'tokenizers', 'onnx', 'onnxruntime', 'typer', 'rich'):\n"
        "    sys.modules[name] = None\n"
        "from effc.runtime.loader import check_integrity\n"
        f"check_integrity({str(artifact)!r})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
