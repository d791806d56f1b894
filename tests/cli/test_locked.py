"""`--locked`: the same artifact again, or every difference by name and nothing written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from effc.cli import main
from effc.diagnostics import EffcError
from effc.lock import build_lock, check_lock, environment, input_hashes, read_lock
from effc.spec.schema import Policy, QualitySpec
from tests.e2e.families import Family

POLICY = """version = 1

[[quantize]]
where = "linear"
method = "rtn"
bits = 8
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `model` and `first`, an artifact made of it."""
    folder = tmp_path_factory.mktemp("locked")
    Family("Llama", {"num_hidden_layers": 1}).save(folder / "model")
    (folder / "policy.toml").write_text(POLICY)
    assert _compile(folder, folder / "policy.toml", folder / "first") == 0
    return folder


def _compile(folder: Path, spec: Path, out: Path, *flags: str) -> int:
    return main(["compile", str(folder / "model"), "--spec", str(spec), "-o", str(out), *flags])


@pytest.fixture
def work(compiled: Path, tmp_path: Path) -> Path:
    """A copy of the folder, to be spoiled."""
    shutil.copytree(compiled, tmp_path / "work")
    return tmp_path / "work"


def _change_lock(work: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = work / "first" / "policy.lock"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def _locked(work: Path, *flags: str) -> int:
    """Make the artifact `first` again, as `second`."""
    return _compile(work, work / "first" / "policy.toml", work / "second", "--locked", *flags)


def test_a_lock_reproduces_its_artifact(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _locked(work, "--json") == 0
    data = json.loads(capsys.readouterr().out)
    for name in ("weights.safetensors", "policy.lock", "policy.toml", "stages/decode.json"):
        assert (work / "first" / name).read_bytes() == (work / "second" / name).read_bytes()
    assert read_lock(work / "first" / "policy.lock")["weights"] == data["weights"]


def _other_bits(work: Path) -> None:
    path = work / "first" / "policy.toml"
    path.write_text(path.read_text().replace("bits = 8", "bits = 4"))


def _other_model(work: Path) -> None:
    path = work / "model" / "config.json"
    path.write_text(path.read_text() + "\n")


def _other_torch(work: Path) -> None:
    _change_lock(work, lambda lock: lock["environment"]["packages"].update(torch="1.0.0"))


@pytest.mark.parametrize(
    ("spoil", "lines"),
    [
        (_other_bits, ["policy: locked bits = 8, found bits = 4"]),
        (_other_model, ["input config.json: locked "]),
        (_other_torch, ["version of torch: locked 1.0.0, found "]),
        (
            lambda work: [spoil(work) for spoil in (_other_bits, _other_model, _other_torch)],
            ["policy: ", "input config.json: ", "version of torch: "],
        ),
    ],
)
def test_every_difference_is_named_before_any_work(
    spoil: Callable[[Path], object],
    lines: list[str],
    work: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(work)
    assert _locked(work) == 2
    text = capsys.readouterr().err
    count = "1 difference" if len(lines) == 1 else f"{len(lines)} differences"
    first, *rest = text.splitlines()
    assert first == f"{work / 'first' / 'policy.lock'}: error[E0105]: {count} from the lock:"
    for found, expected in zip(rest, lines, strict=False):
        assert found.startswith(f"  {expected}")
    assert rest[len(lines)].startswith("help: restore what is locked")
    assert sorted(path.name for path in work.iterdir()) == ["first", "model", "policy.toml"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "there is no lock beside the policy"),
        (lambda path: path.write_text("{"), "the lock cannot be read"),
        (lambda path: path.write_text("[" * 100_000), "the lock cannot be read"),
        (lambda path: path.write_text("[]"), "this is no complete lock of version 2"),
        (lambda path: path.write_text('{"version": 1}'), "this is no complete lock of version 2"),
    ],
)
def test_a_lock_that_cannot_be_used(
    spoil: Callable[[Path], object],
    message: str,
    work: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(work / "first" / "policy.lock")
    assert _locked(work) == 2
    text = capsys.readouterr().err
    assert f"error[E0105]: {message}" in text
    assert "help: compile once without --locked" in text


def test_a_lock_without_the_weights_is_not_complete(work: Path) -> None:
    _change_lock(work, lambda lock: lock.pop("weights"))
    with pytest.raises(EffcError, match="no complete lock"):
        read_lock(work / "first" / "policy.lock")


def test_other_weights_are_not_kept(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _change_lock(work, lambda lock: lock.update(weights="0" * 64))
    assert _locked(work, "--json") == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "E0105"
    assert f"locked {'0' * 64}, found " in error["message"]
    assert sorted(path.name for path in work.iterdir()) == ["first", "model", "policy.toml"]


def test_another_machine_is_only_a_note(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _change_lock(work, lambda lock: lock["environment"].update(machine="abacus"))
    assert _locked(work, "--json") == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    expected = f"locked abacus, found {environment()['machine']}"
    assert f"the lock was made on another machine: {expected}" in notes


def test_the_lock_lies_beside_a_policy(
    tmp_path: Path, compiled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    assert main(["compile", str(compiled / "model"), "-o", out, "--locked"]) == 2
    assert "error[E0101]: --locked needs --spec" in capsys.readouterr().err


def test_rules_that_a_gate_undid_are_compared(compiled: Path) -> None:
    lock = read_lock(compiled / "first" / "policy.lock")
    assert check_lock(lock, lock | {"environment": lock["environment"]}, compiled) == []
    with pytest.raises(
        EffcError, match=r"rules undone by gates: locked none, found quantize\.0"
    ) as caught:
        check_lock(lock, lock | {"reverted": ["quantize.0"]}, compiled)
    assert caught.value.code == "E0105"


def test_the_content_of_a_lock(compiled: Path) -> None:
    done = SimpleNamespace(policy=Policy(), reverted=[{"rule": "quantize.1", "reason": "slow"}])
    lock = build_lock(done, compiled / "model")  # type: ignore[arg-type]
    assert list(lock) == ["version", "policy", "inputs", "environment", "seeds", "reverted"]
    assert lock["reverted"] == ["quantize.1"]
    assert set(lock["inputs"]) == {"config.json", "generation_config.json", "model.safetensors"}


def test_inputs_are_files_and_the_text_to_measure_on(tmp_path: Path) -> None:
    text = tmp_path / "heldout.txt"
    text.write_text("once upon a time")
    policy = Policy(quality=QualitySpec(data=str(text)))
    before = input_hashes(None, policy)
    assert list(before) == ["quality.data"]
    text.write_text("once upon a time, there")
    assert input_hashes(None, policy) != before
    model = tmp_path / "m.safetensors"
    model.write_bytes(b"abc")
    # SHA-256 of "abc", the example of FIPS 180-4.
    assert input_hashes(model, Policy())["m.safetensors"].startswith("ba7816bf8f01cfea414140de")
