"""A writing that was cut off is continued: the same bytes, and nothing computed twice."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from effc.diagnostics import ArtifactError, EffcError, ModelError
from effc.export import safetensors_writer
from effc.export.package import write_artifact
from effc.export.safetensors_writer import WeightsFile, write_weights
from effc.ir.program import Program
from effc.ir.weights import Derivation, Weight, Weights
from effc.progress import Progress
from effc.runtime.loader import check_integrity


class Killed(BaseException):
    """Ends the writing as Ctrl-C does, at a chosen place."""


def _value(name: str) -> torch.Tensor:
    return torch.arange(100) * sum(name.encode())


class Source:
    """Weights that count how often they are computed, and who of their values is alive."""

    def __init__(self, cut: str | None = None, error: BaseException | None = None) -> None:
        self.calls: list[str] = []
        self.alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
        self.cut = cut
        self.error = error or Killed()

    def compute(self, *names: str) -> dict[str, torch.Tensor]:
        if self.cut in names:
            raise self.error
        self.calls += names
        values = {name: _value(name) for name in names}
        self.alive.update(values.values())
        return values

    def alone(self, name: str) -> Weight:
        return Weight((100,), torch.int64, lambda: self.compute(name)[name], "file")

    def table(self) -> Weights:
        """One plain weight, two of one derivation, one more; three over two derivations."""
        weights = Weights({"first": self.alone("first")})
        pair = Derivation(lambda: self.compute("codes", "scale!"))
        fused = Derivation(lambda: self.compute("q", "kk"))
        for name in ("codes", "scale!"):
            weights.set(name, pair.weight(name, (100,), torch.int64, "packing"))
        weights.set("middle", self.alone("middle"))
        q, k = (fused.weight(name, (100,), torch.int64, "fused") for name in ("q", "kk"))
        weights.set("q.codes", self._packed("q.codes", q))
        weights.set("k.codes", self._packed("k.codes", k))
        weights.set("last", self.alone("last"))
        return weights

    def _packed(self, name: str, source: Weight) -> Weight:
        def compute() -> dict[str, torch.Tensor]:
            self.compute(name)
            return {"codes": -source.load()}

        return Derivation(compute, source).weight("codes", (100,), torch.int64, "packing of fused")


ORDER = ("first", "codes", "scale!", "middle", "q.codes", "k.codes", "last")


def _write(source: Source, folder: Path, progress: Progress | None = None) -> WeightsFile:
    return write_weights(
        source.table(), folder / "w", ledger=folder / "done.jsonl", progress=progress or Progress()
    )


def _cut(folder: Path, name: str) -> None:
    with pytest.raises(Killed):
        _write(Source(cut=name), folder)


@pytest.fixture
def whole(tmp_path: Path) -> tuple[bytes, WeightsFile]:
    """The file and the account of a writing that nothing disturbed."""
    written = write_weights(Source().table(), tmp_path / "whole")
    return (tmp_path / "whole").read_bytes(), written


@pytest.mark.parametrize(
    ("cut", "computed"),
    [
        ("first", {"first", "codes", "scale!", "middle", "q", "kk", "q.codes", "k.codes", "last"}),
        ("codes", {"codes", "scale!", "middle", "q", "kk", "q.codes", "k.codes", "last"}),
        ("middle", {"middle", "q", "kk", "q.codes", "k.codes", "last"}),
        ("q.codes", {"q", "kk", "q.codes", "k.codes", "last"}),
        # `q.codes` is finished, but reading `kk` gives `q` again: nobody may be left with it.
        ("k.codes", {"q", "kk", "q.codes", "k.codes", "last"}),
        ("last", {"last"}),
    ],
)
def test_only_the_rest_is_computed_and_the_bytes_are_the_same(
    cut: str, computed: set[str], whole: tuple[bytes, WeightsFile], tmp_path: Path
) -> None:
    _cut(tmp_path, cut)
    source = Source()
    written = _write(source, tmp_path)
    assert set(source.calls) == computed
    assert len(source.calls) == len(computed)
    assert (tmp_path / "w").read_bytes() == whole[0]
    assert written.digests == whole[1].digests
    assert list(written.digests) == list(whole[1].digests)
    assert written.digest == whole[1].digest
    assert written.reused == sum(name not in computed for name in ORDER)
    assert not source.alive


def test_a_kill_between_two_results_of_one_computation(
    whole: tuple[bytes, WeightsFile], tmp_path: Path
) -> None:
    class Kill(Progress):
        def advance(self, name: str, done: int, total: int) -> None:
            if name == "scale!":
                raise Killed

    with pytest.raises(Killed):
        _write(Source(), tmp_path, Kill())
    lines = (tmp_path / "done.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["first", "codes"]
    source = Source()
    assert _write(source, tmp_path).reused == 1
    assert not source.alive
    assert (tmp_path / "w").read_bytes() == whole[0]


def _damage_tensor(folder: Path) -> None:
    content = bytearray((folder / "w").read_bytes())
    content[content.index(_value("first").numpy().tobytes()) + 8] ^= 1
    (folder / "w").write_bytes(content)


def _damage_key(folder: Path) -> None:
    text = (folder / "done.jsonl").read_text().splitlines()
    first = json.loads(text[0]) | {"key": "0" * 16}
    (folder / "done.jsonl").write_text("\n".join([json.dumps(first), *text[1:], ""]))


def _tear_line(folder: Path) -> None:
    content = (folder / "done.jsonl").read_bytes()
    (folder / "done.jsonl").write_bytes(content[:-10])


def _damage_header(folder: Path) -> None:
    content = (folder / "w").read_bytes()
    (folder / "w").write_bytes(b"\0" + content[1:])


def _cut_file(folder: Path) -> None:
    content = (folder / "w").read_bytes()
    (folder / "w").write_bytes(content[:-1])


def _garble_ledger(folder: Path) -> None:
    (folder / "done.jsonl").write_bytes(b'{"name": 3}\n[]\n\xff\n')


@pytest.mark.parametrize(
    ("damage", "reused"),
    [
        (_damage_tensor, 3),
        (_damage_key, 3),
        (_tear_line, 3),
        (_damage_header, 0),
        (_cut_file, 0),
        (_garble_ledger, 0),
        (lambda folder: (folder / "w").unlink(), 0),
        (lambda folder: (folder / "done.jsonl").unlink(), 0),
    ],
)
def test_nothing_is_believed(
    damage: Callable[[Path], None],
    reused: int,
    whole: tuple[bytes, WeightsFile],
    tmp_path: Path,
) -> None:
    _cut(tmp_path, "q.codes")
    damage(tmp_path)
    assert _write(Source(), tmp_path).reused == reused
    assert (tmp_path / "w").read_bytes() == whole[0]
    lines = (tmp_path / "done.jsonl").read_text().splitlines()
    assert {json.loads(line)["name"] for line in lines} == set(ORDER)


def test_many_kills_in_a_row(whole: tuple[bytes, WeightsFile], tmp_path: Path) -> None:
    for cut in ("codes", "codes", "middle", "last", "last"):
        _cut(tmp_path, cut)
    assert _write(Source(), tmp_path).reused == 6
    assert (tmp_path / "w").read_bytes() == whole[0]


def test_tensors_are_made_durable_in_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs: list[int] = []
    monkeypatch.setattr(safetensors_writer, "_sync", lambda file: syncs.append(1))
    _write(Source(), tmp_path)
    assert len(syncs) == 1
    monkeypatch.setattr(safetensors_writer, "SYNC_BYTES", 1600)  # two tensors
    (tmp_path / "two").mkdir()
    _write(Source(), tmp_path / "two")
    assert len(syncs) == 1 + 3 + 1


LOCK = {"inputs": {"model.safetensors": "ab"}}


def _package(
    program: Program, out: Path, lock: dict[str, object] | None = None, **options: object
) -> WeightsFile:
    return write_artifact(
        program,
        out,
        policy_text=None,
        lock=LOCK if lock is None else lock,
        report={},
        **{"resume": True, **options},  # type: ignore[arg-type]
    )


def _parts(folder: Path) -> list[Path]:
    return sorted(folder.glob(".out.*.part"))


class Notes(Progress):
    """Remembers what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)


def _interrupted(program: Program, out: Path, error: BaseException, **options: object) -> Notes:
    """Write until the last weight, which fails."""

    def fail() -> torch.Tensor:
        raise error

    notes = Notes()
    program.weights.set("zz", Weight((3,), torch.float32, fail, "file"))
    with pytest.raises(type(error)):
        _package(program, out, progress=notes, **options)
    program.weights.set("zz", Weight((3,), torch.float32, lambda: torch.ones(3), "file"))
    return notes


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), MemoryError(), KeyError(1)])
def test_an_interrupted_artifact_is_kept_and_finished(
    error: BaseException, program: Program, tmp_path: Path
) -> None:
    notes = _interrupted(program, tmp_path / "out", error)
    (part,) = _parts(tmp_path)
    assert notes.lines == [f"kept {part.name}: the same command goes on with its finished tensors"]
    assert not (tmp_path / "out").exists()
    written = _package(program, tmp_path / "out")
    assert written.reused == len(program.weights) - 1
    check_integrity(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]
    assert not (tmp_path / "out/done.jsonl").exists()
    undisturbed = _package(program, tmp_path / "undisturbed")
    assert undisturbed.reused == 0
    for name in ("weights.safetensors", "effc.json", "policy.lock"):
        assert (tmp_path / "out" / name).read_bytes() == (
            tmp_path / "undisturbed" / name
        ).read_bytes()


@pytest.mark.parametrize("error", [ModelError("E0305", "damaged"), ArtifactError("E0103", "full")])
def test_a_refusal_leaves_nothing(error: EffcError, program: Program, tmp_path: Path) -> None:
    assert _interrupted(program, tmp_path / "out", error).lines == []
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_what_cannot_be_continued_is_not_kept(program: Program, tmp_path: Path) -> None:
    """A model in memory may be another one under the same names."""
    _interrupted(program, tmp_path / "out", KeyboardInterrupt(), resume=False)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_nothing_is_kept_before_a_tensor_is_finished(program: Program, tmp_path: Path) -> None:
    class Interrupt(Progress):
        def advance(self, name: str, done: int, total: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _package(program, tmp_path / "out", progress=Interrupt())
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def _other_policy(program: Program) -> dict[str, object]:
    return LOCK | {"policy": "bits = 8"}


def _other_layout(program: Program) -> dict[str, object]:
    program.weights.set("more", Weight.of(torch.ones(2)))
    return LOCK


def _other_graph(program: Program) -> dict[str, object]:
    (linear,) = (n for n in program.stages["decode"].graph.nodes if "linear" in str(n.target))
    linear.meta["kernel"] = "faster"
    return LOCK


@pytest.mark.parametrize("change", [_other_policy, _other_layout, _other_graph])
def test_other_inputs_reuse_nothing_and_say_so(
    change: Callable[[Program], dict[str, object]], program: Program, tmp_path: Path
) -> None:
    _interrupted(program, tmp_path / "out", KeyboardInterrupt())
    (part,) = _parts(tmp_path)
    notes = Notes()
    written = _package(program, tmp_path / "out", change(program), progress=notes)
    assert written.reused == 0
    assert notes.lines == [f"removed {part.name}: an unfinished compilation with other inputs"]
    assert _parts(tmp_path) == []
    check_integrity(tmp_path / "out")


def test_the_lock_names_the_weights(program: Program, tmp_path: Path) -> None:
    written = _package(program, tmp_path / "out")
    lock = json.loads((tmp_path / "out/policy.lock").read_bytes())
    assert lock == LOCK | {"weights": written.digest}
    again = _package(program, tmp_path / "out", lock, force=True, locked=written.digest)
    assert again.digest == written.digest
    program.weights.set("half", Weight.of(torch.zeros(3, 5).half()))
    assert _package(program, tmp_path / "other").digest != written.digest


def test_weights_that_are_not_the_locked_ones_are_not_kept(
    program: Program, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match=r"locked 1234, found [0-9a-f]{64}") as caught:
        _package(program, tmp_path / "out", locked="1234")
    assert caught.value.code == "E0105"
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
