"""Claims: one process per output, refused at once; what a kill left is put right."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from effc.diagnostics import ArtifactError
from effc.export.claim import claim

HOLD = """
import sys, time
from pathlib import Path
from effc.export.claim import claim
with claim(Path(sys.argv[1]), force=False):
    print("claimed", flush=True)
    time.sleep(60)
"""


def _holder(out: Path) -> subprocess.Popen[str]:
    """A process that has claimed `out`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "claimed\n"
    return process


def test_a_claim_leaves_nothing(tmp_path: Path) -> None:
    with claim(tmp_path / "out", force=False) as output:
        assert output.path == tmp_path / "out"
        assert [path.name for path in tmp_path.iterdir()] == [".out.lock"]
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyError), claim(tmp_path / "out", force=False):
        raise KeyError
    assert not list(tmp_path.iterdir())


def test_a_second_writer_is_refused_and_another_output_is_not(tmp_path: Path) -> None:
    with claim(tmp_path / "out", force=False):
        with pytest.raises(ArtifactError) as caught, claim(tmp_path / "out", force=True):
            pass
        assert (caught.value.code, caught.value.where) == ("E0605", str(tmp_path / "out"))
        with claim(tmp_path / "other", force=False):
            pass
        (tmp_path / "link").symlink_to(tmp_path / "out")
        with pytest.raises(ArtifactError, match="E0605"), claim(tmp_path / "link", force=False):
            pass
    with claim(tmp_path / "out", force=False):
        pass


def test_another_process_is_refused_until_it_dies(tmp_path: Path) -> None:
    holder = _holder(tmp_path / "out")
    try:
        with pytest.raises(ArtifactError, match="E0605"), claim(tmp_path / "out", force=False):
            pass
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate()
    assert (tmp_path / ".out.lock").exists()
    with claim(tmp_path / "out", force=False):
        pass
    assert not list(tmp_path.iterdir())


def test_a_refused_claim_is_given_back(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    for force in (False, True):
        with pytest.raises(ArtifactError, match="E0102"), claim(tmp_path / "out", force=force):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_root_of_the_file_system_is_no_output() -> None:
    with pytest.raises(ArtifactError, match="E0102"), claim(Path("/"), force=True):
        pass


OLD = ".out.0123456789ab.old"


def test_an_exchange_that_was_cut_in_two_is_undone(tmp_path: Path) -> None:
    (tmp_path / OLD).mkdir()
    (tmp_path / OLD / "effc.json").write_text("the artifact before")
    with pytest.raises(ArtifactError, match="E0102"), claim(tmp_path / "out", force=False):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out/effc.json").read_text() == "the artifact before"


def test_what_was_replaced_goes_when_its_successor_is_there(tmp_path: Path) -> None:
    (tmp_path / OLD).mkdir()
    (tmp_path / "out").mkdir()
    with claim(tmp_path / "out", force=True):
        assert not (tmp_path / OLD).exists()


@pytest.mark.parametrize(
    "name",
    [".out.0123456789ab.part.old", ".out.b.0123456789ab.old", ".out.0123456789AB.old", "out.old"],
)
def test_names_of_other_outputs_and_users_are_left_alone(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with claim(tmp_path / "out", force=False) as output:
        assert output.left_behind("old") == []
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_claims_load_no_torch(tmp_path: Path) -> None:
    code = "import sys, effc.export.claim; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
