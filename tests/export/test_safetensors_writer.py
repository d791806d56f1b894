"""The writer of weights: readable by the official library, one weight at a time, all or nothing."""

from __future__ import annotations

import errno
import hashlib
import json
import weakref
from pathlib import Path

import pytest
import safetensors.torch
import torch

from effc.diagnostics import ArtifactError, InternalError, ModelError
from effc.export import safetensors_writer
from effc.export.layout import DTYPE_NAMES
from effc.export.safetensors_writer import write_weights
from effc.ir.program import Program
from effc.ir.weights import Weight, Weights
from effc.progress import Progress


def test_the_official_library_reads_every_value(program: Program, tmp_path: Path) -> None:
    expected = {n: w.load().clone() for n, w in program.weights.items() if w.origin == "memory"}
    written = write_weights(program.weights, tmp_path / "w.safetensors")
    read = safetensors.torch.load_file(tmp_path / "w.safetensors")
    assert read.keys() == set(program.weights)
    for name, value in expected.items():
        assert read[name].dtype == value.dtype
        assert read[name].shape == value.shape
        assert safetensors.torch.save({"x": read[name]}) == safetensors.torch.save(
            {"x": value.contiguous()}
        )
    assert read["codes"].tolist() == list(range(11))
    assert written.size == (tmp_path / "w.safetensors").stat().st_size


@pytest.mark.parametrize("dtype", DTYPE_NAMES, ids=str)
def test_every_element_type_is_written(dtype: torch.dtype, tmp_path: Path) -> None:
    value = torch.tensor([0.0, 1.0, 3.0]).to(dtype)
    write_weights(Weights({"x": Weight.of(value)}), tmp_path / "w")
    read = safetensors.torch.load_file(tmp_path / "w")["x"]
    assert read.dtype == dtype
    assert read.to(torch.complex128).tolist() == value.to(torch.complex128).tolist()


def test_tensors_are_aligned_and_digests_are_of_their_bytes(
    program: Program, tmp_path: Path
) -> None:
    written = write_weights(program.weights, tmp_path / "w")
    content = (tmp_path / "w").read_bytes()
    assert content.startswith(written.header)
    assert len(written.header) % 64 == 0
    header = json.loads(written.header[8:])
    header.pop("__metadata__")
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        assert (len(written.header) + begin) % program.weights[name].dtype.itemsize == 0
        data = content[len(written.header) :][begin:end]
        assert hashlib.sha256(data).hexdigest() == written.digests[name]


def test_one_weight_is_held_at_a_time(tmp_path: Path) -> None:
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = 0

    def load() -> torch.Tensor:
        nonlocal most
        value = torch.zeros(1000)
        alive.add(value)
        most = max(most, len(alive))
        return value

    weights = Weights({f"w{i}": Weight((1000,), torch.float32, load, "t") for i in range(10)})
    write_weights(weights, tmp_path / "w")
    assert most == 1


class Calls(Progress):
    """Remembers how it was advanced."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int]] = []

    def advance(self, name: str, done: int, total: int) -> None:
        self.calls.append((name, done, total))


def test_progress_counts_all_bytes(program: Program, tmp_path: Path) -> None:
    progress = Calls()
    write_weights(program.weights, tmp_path / "w", progress=progress)
    total = program.weights.nbytes
    assert [done for _, done, _ in progress.calls] == sorted(done for _, done, _ in progress.calls)
    assert progress.calls[0][1:] == (0, total)
    assert progress.calls[-1][1:] == (total, total)
    assert list(program.weights) == list(dict.fromkeys(name for name, _, _ in progress.calls))


@pytest.mark.parametrize("calls_before", [0, 1, 5])
def test_a_full_disk_leaves_nothing(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls_before: int
) -> None:
    write, calls = safetensors_writer._write, 0

    def fail_later(*args: object) -> None:
        nonlocal calls
        calls += 1
        if calls > calls_before:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(safetensors_writer, "_write", fail_later)
    with pytest.raises(ArtifactError) as caught:
        write_weights(program.weights, tmp_path / "w")
    assert caught.value.code == "E0103"
    assert caught.value.where == str(tmp_path / "w")
    assert "No space left" in caught.value.message
    assert "free" in str(caught.value.help)
    assert not (tmp_path / "w").exists()


def test_an_existing_file_is_not_touched(program: Program, tmp_path: Path) -> None:
    (tmp_path / "w").write_text("mine")
    with pytest.raises(ArtifactError, match="E0103"):
        write_weights(program.weights, tmp_path / "w")
    assert (tmp_path / "w").read_text() == "mine"


def test_a_missing_folder_is_named(program: Program, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nowhere/w: error\[E0103\]"):
        write_weights(program.weights, tmp_path / "nowhere" / "w")


def test_a_weight_that_lies_about_itself_is_a_defect(tmp_path: Path) -> None:
    lie = Weight((3,), torch.float32, lambda: torch.zeros(4), "pass x")
    with pytest.raises(InternalError, match="pass x"):
        write_weights(Weights({"w": lie}), tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_an_unreadable_source_is_not_blamed_on_the_output(tmp_path: Path) -> None:
    def load() -> torch.Tensor:
        raise OSError(errno.EIO, "Input/output error")

    weights = Weights({"w": Weight((3,), torch.float32, load, "model.safetensors")})
    with pytest.raises(ModelError, match=r"model.safetensors: error\[E0301\]"):
        write_weights(weights, tmp_path / "w")
    assert not (tmp_path / "w").exists()
