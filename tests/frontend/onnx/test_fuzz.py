"""Mutated ONNX files: refused with an `EffcError` or taken, in bounded time and memory.

`python -m tests.frontend.onnx.test_fuzz --seconds 120` goes on longer, over the models of the
standard's own node tests too, and prints what escapes with the seed that shows it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import effc
from effc.cli import main
from effc.diagnostics import EffcError, ExitCode
from effc.frontend.onnx.reader import read_model
from tests.frontend.onnx.mutations import spoil
from tests.frontend.onnx.seeds import ENORMOUS, SEEDS, enormous

ROOT = Path(__file__).parents[3]

Act = Callable[[Path], bool]
"""What is done with a file; whether it was taken."""

SECONDS = 20
"""Of the processor. No model of a few nodes takes this long, whatever stands in it."""
GROWTH = 2**30
"""Bytes of address space that one file may add."""

POLICY = 'version = 1\n\n[[quantize]]\nwhere = "linear"\nmethod = "rtn"\noptional = true\n'

files = st.tuples(st.integers(0, len(SEEDS) - 1), st.integers(0, 2**32 - 1))


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Stop what runs too long (TimeoutError) or takes too much memory (MemoryError)."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"not done after {SECONDS} s")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGPROF, stop)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + GROWTH, before[1]))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def read(path: Path) -> bool:
    return read_model(path) is not None


def bring_in(path: Path) -> bool:
    return effc.import_onnx(path) is not None


def look_at(path: Path) -> bool:
    """`effc inspect`, whose exit code tells an internal error from a refusal."""
    return _command(["inspect", str(path)])


def compile_it(path: Path) -> bool:
    """`effc compile`, into a folder beside the file."""
    policy = path.with_name("policy.toml")
    policy.write_text(POLICY)
    out = path.with_name("out")
    return _command(["compile", str(path), "--spec", str(policy), "-o", str(out), "--force"])


def _command(arguments: list[str]) -> bool:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main([*arguments, "--debug"])
    if code == ExitCode.INTERNAL:
        raise RuntimeError(f"internal error: {said.getvalue()}")
    return code == ExitCode.DONE


def refuses_or_takes(act: Act, path: Path, data: bytes) -> bool:
    """Whether a file is taken; anything but a refusal goes through."""
    path.write_bytes(data)
    with bounded(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return act(path)
        except EffcError:
            return False


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("act", (read, bring_in, look_at), ids=lambda act: act.__name__)
def test_the_models_are_sound_before(act: Act, folder: Path) -> None:
    for make in SEEDS:
        assert refuses_or_takes(act, folder / "model.onnx", make().SerializeToString())


@pytest.mark.parametrize("operator", ENORMOUS)
def test_a_small_file_takes_no_terabytes(operator: str, folder: Path) -> None:
    refuses_or_takes(bring_in, folder / "model.onnx", enormous(operator).SerializeToString())


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(file=files)
def test_reading(folder: Path, file: tuple[int, int]) -> None:
    refuses_or_takes(read, folder / "model.onnx", spoil(SEEDS[file[0]](), file[1]))


@settings(max_examples=120, deadline=None, derandomize=True, database=None)
@given(file=files)
def test_importing(folder: Path, file: tuple[int, int]) -> None:
    refuses_or_takes(bring_in, folder / "model.onnx", spoil(SEEDS[file[0]](), file[1]))


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(file=files)
def test_inspecting(folder: Path, file: tuple[int, int]) -> None:
    refuses_or_takes(look_at, folder / "model.onnx", spoil(SEEDS[file[0]](), file[1]))


@settings(max_examples=5, deadline=None, derandomize=True, database=None)
@given(file=files)
def test_compiling(folder: Path, file: tuple[int, int]) -> None:
    refuses_or_takes(compile_it, folder / "model.onnx", spoil(SEEDS[file[0]](), file[1]))


def test_every_mutation_is_refused_sometimes_or_harmless(folder: Path) -> None:
    """The mutations do something: most spoiled files are refused, some are still models."""
    taken = [
        refuses_or_takes(read, folder / "model.onnx", spoil(make(), seed))
        for make in SEEDS
        for seed in range(40)
    ]
    assert 0.1 < sum(taken) / len(taken) < 0.7


def _escape(error: BaseException) -> str:
    """The place in effc where an exception came from, and what it says."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if (ROOT / "effc") in Path(f.filename).parents]
    last = own[-1] if own else frames[-1]
    place = f"{last.filename.removeprefix(f'{ROOT}/')}:{last.lineno}"
    lines = str(error).strip().splitlines() or [""]
    said = lines[-1] if lines[0].startswith("internal error") else lines[0]
    return f"{place} {type(error).__name__}: {said[:160]}"


def _files(first: int) -> Iterator[tuple[int, bytes]]:
    """Seeds and spoiled files without end; every third is a model of the standard's node tests."""
    from onnx.backend.test import loader

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nodes = [case.model for case in loader.load_model_tests(kind="node") if case.model]
    for seed in itertools.count(first):
        source = onnx.ModelProto()
        source.CopyFrom(SEEDS[seed % len(SEEDS)]() if seed % 3 else nodes[seed // 3 % len(nodes)])
        yield seed, spoil(source, seed)


def _run(seconds: float, first: int, act: Act, keep: Path | None) -> int:
    """Fuzz for a while; returns how many kinds of escapes there were."""
    found: Counter[str] = Counter()
    files, taken, end = 0, 0, time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        for seed, data in _files(first):
            if time.monotonic() > end:
                break
            files += 1
            try:
                taken += refuses_or_takes(act, Path(folder) / "model.onnx", data)
            except Exception as error:
                text = _escape(error)
                found[text] += 1
                if keep is not None and found[text] == 1:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{seed}.onnx").write_bytes(data)
                    (keep / f"{seed}.txt").write_text(text)
    print(f"{files} files, {taken} taken, {found.total()} escapes")
    for text, count in found.most_common():
        print(f"{count:6}  {text}")
    return len(found)


if __name__ == "__main__":
    acts = {"read": read, "import": bring_in, "inspect": look_at, "compile": compile_it}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--act", choices=acts, default="import")
    parser.add_argument("--keep", type=Path, help="folder for the files that escape")
    given_arguments = parser.parse_args()
    chosen = acts[given_arguments.act]
    sys.exit(_run(given_arguments.seconds, given_arguments.first, chosen, given_arguments.keep) > 0)
