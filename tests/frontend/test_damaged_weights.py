"""What is said of a weights file that is none, in our own words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from effc.diagnostics import ModelError, Span
from effc.frontend.huggingface.checkpoint import open_checkpoint

WHOLE = save({"a": torch.arange(4.0), "b": torch.ones(2)})
HEADER = int.from_bytes(WHOLE[:8], "little")

DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the file is empty"),
    "shorter-than-its-header": (
        WHOLE[:12],
        f"the file is cut off: it has 12 bytes of at least {8 + HEADER}",
    ),
    "shorter-than-its-tensors": (
        WHOLE[:-3],
        f"the file is cut off: it has {len(WHOLE) - 3} bytes of at least {len(WHOLE)}",
    ),
    "something-else": (b"<!DOCTYPE html><html>", "the file is no safetensors file"),
    "header-that-is-no-json": (
        WHOLE[:8] + b"x" * HEADER + WHOLE[8 + HEADER :],
        "the header of the file is damaged",
    ),
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
        "the file is a pointer of Git LFS, not the weights",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_weights_file(name: str, tmp_path: Path) -> None:
    content, message = DAMAGED[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        open_checkpoint(tmp_path)
    error = caught.value
    assert (error.code, error.message, error.where) == ("E0305", message, str(path))
    assert error.help


def test_an_index_is_read_like_other_json(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{\n "weight_map": }')
    with pytest.raises(ModelError, match=r"index.json:2:16: error\[E0301\]: .* is no valid JSON"):
        open_checkpoint(tmp_path)
    index.write_text(json.dumps({"metadata": {}}))
    with pytest.raises(ModelError, match=r"E0305.*has no 'weight_map'"):
        open_checkpoint(tmp_path)


def test_a_long_line_is_not_printed(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text('{"a": "' + "b" * 3000 + '",}')
    with pytest.raises(ModelError) as caught:
        open_checkpoint(tmp_path)
    assert isinstance(caught.value.where, Span) and len(str(caught.value)) < 300


def test_brackets_without_end(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text("[" * 100_000)
    with pytest.raises(ModelError, match="is no valid JSON"):
        open_checkpoint(tmp_path)
