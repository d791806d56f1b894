"""Artifacts: whole or absent, equal when read back, never at the cost of the user's files."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from effc.diagnostics import ArtifactError, EffcError, InternalError
from effc.export import safetensors_writer
from effc.export.package import write_artifact
from effc.ir.program import Program
from effc.ir.serialize import stage_to_json
from effc.ir.weights import Weight
from effc.progress import Progress
from effc.runtime.loader import check_integrity, load_program

POLICY = 'version = 1\n[[quantize]]\nwhere = "linear"\nmethod = "rtn"\n'


def write(program: Program, out: Path, *, force: bool = False, resume: bool = False) -> None:
    write_artifact(
        program,
        out,
        policy_text=POLICY,
        lock={"seed": 1},
        report={"kl": 0.25},
        html="<p>0.25</p>",
        force=force,
        resume=resume,
    )


def _tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_program_comes_back_equal(program: Program, tmp_path: Path) -> None:
    values = {n: w.load() for n, w in program.weights.items() if w.origin == "memory"}
    write(program, tmp_path / "out")
    read = load_program(tmp_path / "out")
    for field in ("cache_sites", "groups", "schedule", "page_size", "loop", "device"):
        assert getattr(read, field) == getattr(program, field), field
    assert read.notes == ["a remark in two lines"]
    assert dataclasses.replace(read.info, files={}) == dataclasses.replace(program.info, files={})
    for name, path in read.info.files.items():
        assert path.read_bytes() == program.info.files[name].read_bytes()
    assert stage_to_json(read.stages["decode"]) == stage_to_json(program.stages["decode"])
    assert read.weights.ties == program.weights.ties
    assert list(read.weights) == list(program.weights)
    for name, value in values.items():
        assert torch.equal(read.weights[name].load().double(), value.double()), name
    check_integrity(tmp_path / "out")


def test_the_folder_holds_what_the_design_says(program: Program, tmp_path: Path) -> None:
    write(program, tmp_path / "out")
    assert sorted(_tree(tmp_path / "out")) == [
        "effc.json",
        "model/config.json",
        "model/tokenizer.json",
        "policy.lock",
        "policy.toml",
        "report.html",
        "report.json",
        "stages/decode.json",
        "weights.safetensors",
    ]
    assert (tmp_path / "out/policy.toml").read_text() == POLICY
    assert (tmp_path / "out/report.html").read_text() == "<p>0.25</p>"
    manifest = json.loads((tmp_path / "out/effc.json").read_bytes())
    assert manifest["format"] == 1
    assert manifest["versions"]["torch"] == torch.__version__
    assert manifest["kernels"] == {"decode": {"aten.linear.default": {"reference": 1}}}
    assert manifest["stages"][0]["inputs"][1]["role"] == "state"
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o777 & ~umask


def test_equal_programs_make_equal_artifacts(program: Program, tmp_path: Path) -> None:
    write(program, tmp_path / "one")
    write(program, tmp_path / "two")
    assert _tree(tmp_path / "one") == _tree(tmp_path / "two")


def test_a_read_artifact_can_be_written_again(program: Program, tmp_path: Path) -> None:
    write(program, tmp_path / "out")
    again = load_program(tmp_path / "out")
    write(again, tmp_path / "out", force=True)  # over the files that it is read from
    check_integrity(tmp_path / "out")
    assert stage_to_json(again.stages["decode"]) == stage_to_json(program.stages["decode"])


def test_an_existing_folder_needs_force(program: Program, tmp_path: Path) -> None:
    write(program, tmp_path / "out")
    before = _tree(tmp_path / "out")
    with pytest.raises(ArtifactError, match="--force") as caught:
        write(program, tmp_path / "out")
    assert caught.value.code == "E0102"
    assert _tree(tmp_path / "out") == before
    program.page_size = 64
    write(program, tmp_path / "out", force=True)
    assert load_program(tmp_path / "out").page_size == 64
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_force_never_replaces_what_is_not_an_artifact(program: Program, tmp_path: Path) -> None:
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter1.tex").write_text("precious")
    with pytest.raises(ArtifactError, match="no readable effc artifact"):
        write(program, thesis, force=True)
    (thesis / "effc.json").write_text("{}")
    with pytest.raises(ArtifactError, match="no readable effc artifact"):
        write(program, thesis, force=True)
    note = tmp_path / "note.txt"
    note.write_text("precious")
    with pytest.raises(ArtifactError, match="no folder"):
        write(program, note, force=True)
    assert (thesis / "chapter1.tex").read_text() == note.read_text() == "precious"


def test_force_spares_files_put_into_an_artifact(program: Program, tmp_path: Path) -> None:
    write(program, tmp_path / "out")
    (tmp_path / "out/results.csv").write_text("precious")
    with pytest.raises(ArtifactError, match=r"results\.csv"):
        write(program, tmp_path / "out", force=True)
    assert (tmp_path / "out/results.csv").read_text() == "precious"


def test_force_takes_an_empty_folder(program: Program, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ArtifactError, match="E0102"):
        write(program, tmp_path / "out")
    write(program, tmp_path / "out", force=True)
    check_integrity(tmp_path / "out")


def test_a_link_is_followed(program: Program, tmp_path: Path) -> None:
    write(program, tmp_path / "real")
    (tmp_path / "out").symlink_to(tmp_path / "real")
    program.page_size = 64
    write(program, tmp_path / "out", force=True)
    assert (tmp_path / "out").is_symlink()
    assert load_program(tmp_path / "real").page_size == 64


def test_a_missing_parent_is_named(program: Program, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not exist") as caught:
        write(program, tmp_path / "a" / "b")
    assert caught.value.where == str(tmp_path / "a")
    assert "mkdir -p" in str(caught.value.help)


def test_a_parent_without_permission_is_named(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ArtifactError, match=r"E0103.*may not be written to"):
        write(program, tmp_path / "out")


@pytest.mark.parametrize("resume", [False, True])
def test_every_failure_of_the_disk_leaves_a_whole_artifact(
    resume: bool, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fail at the n-th call of everything that writes, for every n."""
    write(program, tmp_path / "out")
    before, siblings = _tree(tmp_path / "out"), sorted(tmp_path.iterdir())
    program.page_size = 64
    failures = 0
    while True:
        with monkeypatch.context() as patch:
            for owner, name in (
                (safetensors_writer, "_write"),
                (os, "fsync"),
                (Path, "rename"),
                (Path, "mkdir"),
            ):
                patch.setattr(owner, name, _failing(getattr(owner, name), failures))
            _CALLS.clear()
            try:
                write(program, tmp_path / "out", force=True, resume=resume)
                break
            except ArtifactError as error:
                assert error.code == "E0103"
                assert str(error.where).startswith(str(tmp_path / "out"))
        failures += 1
        assert sorted(tmp_path.iterdir()) == siblings
        check_integrity(tmp_path / "out")
        is_new = load_program(tmp_path / "out").page_size == 64
        assert is_new or _tree(tmp_path / "out") == before
    assert failures > 25
    assert load_program(tmp_path / "out").page_size == 64


_CALLS: list[str] = []


def _failing(function, after):  # type: ignore[no-untyped-def]
    def call(*args, **kwargs):  # type: ignore[no-untyped-def]
        _CALLS.append(function.__name__)
        if len(_CALLS) == after + 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return function(*args, **kwargs)

    return call


def test_a_really_full_disk(program: Program, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs privileges")
    try:
        program.weights.set("large", Weight.of(torch.zeros(1 << 20)))
        with pytest.raises(ArtifactError, match="No space left") as caught:
            write(program, disk / "out")
        assert caught.value.where == str(disk / "out/weights.safetensors")
        assert not any(disk.iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_an_interrupt_leaves_nothing(program: Program, tmp_path: Path) -> None:
    class Interrupt(Progress):
        def advance(self, name: str, done: int, total: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_artifact(
            program,
            tmp_path / "out",
            policy_text=None,
            lock={},
            report={},
            force=False,
            progress=Interrupt(),
        )
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_defect_in_a_weight_leaves_nothing(program: Program, tmp_path: Path) -> None:
    program.weights.set("bad", Weight((2,), torch.float32, lambda: torch.zeros(3), "x"))
    with pytest.raises(InternalError):
        write(program, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_vanished_tokenizer_is_named(program: Program, tmp_path: Path) -> None:
    program.info.files["tokenizer.json"].unlink()
    with pytest.raises(EffcError, match=r"tokenizer\.json.*E0301"):
        write(program, tmp_path / "out")


def test_a_graph_that_could_not_be_read_is_not_written(program: Program, tmp_path: Path) -> None:
    node = next(n for n in program.stages["decode"].graph.nodes if n.op == "get_attr")
    node.name = "weights"
    with pytest.raises(EffcError, match="E0406"):
        write(program, tmp_path / "out")
    assert not (tmp_path / "out").exists()
