"""`kill -9` at random moments of real compilations: never half an artifact, and the same weights.

A server process loads and warms up the compiler once; every trial is a fork of it that runs `effc
compile`, is killed, and is followed by another one that runs the same command to its end.
"""

from __future__ import annotations

import contextlib
import gc
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from effc.cli import main
from effc.runtime.loader import check_integrity
from tests.e2e.families import Family

KILLS = 20
SEED = 0
POLL_SECONDS = 0.0005
LONGEST = 120.0

POLICY = """version = 1

[[quantize]]
where = "linear"
method = "rtn"
bits = 4
"""

# One layer whose linears take long enough to be killed in between.
MODEL = Family(
    "Llama",
    {"num_hidden_layers": 1, "hidden_size": 512, "intermediate_size": 4096, "head_dim": 128},
)


def serve(requests: Connection) -> None:
    """Fork for every command line that comes in; answer with the process's id, then its end."""
    with contextlib.suppress(EOFError):
        while True:
            arguments, answer = requests.recv()
            child = os.fork()
            if child == 0:
                with open(answer, "w") as file, contextlib.redirect_stdout(file):
                    code = main(arguments)
                os._exit(code)
            requests.send(child)
            requests.send(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def start_server(requests: Connection, warm_up: list[str]) -> None:
    """Compile once, so that what the forks share is loaded, and serve."""
    import torch

    torch.set_num_threads(1)  # threads would not survive the fork
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        requests.send(main(warm_up))
    gc.freeze()  # what is loaded stays: collecting it would copy its pages into every fork
    serve(requests)


@dataclass
class Bench:
    """Compiles one model, over and over, in processes of their own.

    Attributes:
        folder: holds `model`, `policy.toml` and what is compiled.
        server: takes command lines, see `serve`.
        weights: the weights file of an undisturbed compilation.
        tensors: in that file.
        seconds: that it took.
    """

    folder: Path
    server: Connection = field(repr=False)
    weights: bytes = b""
    tensors: int = 0
    seconds: float = 0.0

    @property
    def out(self) -> Path:
        return self.folder / "work" / "out"

    def arguments(self) -> list[str]:
        model, policy = self.folder / "model", self.folder / "policy.toml"
        return ["compile", str(model), "--spec", str(policy), "-o", str(self.out), "--json"]

    def clear(self) -> None:
        """Remove everything but the inputs."""
        shutil.rmtree(self.out.parent, ignore_errors=True)
        self.out.parent.mkdir()

    def start(self) -> int:
        """Begin a compilation; returns the id of its process."""
        self.server.send((self.arguments(), str(self.folder / "answer.json")))
        return int(self._receive())

    def ended(self) -> bool:
        """Whether the compilation that was started has ended."""
        return self.server.poll()

    def exit_code(self) -> int:
        """Wait until it has."""
        return int(self._receive())

    def answer(self) -> dict[str, Any]:
        """What it has printed."""
        return json.loads((self.folder / "answer.json").read_text())

    def finished_tensors(self) -> int:
        """Lines in the ledger of the compilation that is running."""
        try:
            return sum(
                path.read_bytes().count(b"\n") for path in self.out.parent.glob(".out.*/done.jsonl")
            )
        except FileNotFoundError:  # it was removed meanwhile
            return self.tensors

    def _receive(self) -> Any:
        assert self.server.poll(LONGEST), "the server does not answer"
        return self.server.recv()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("kills")
    MODEL.save(folder / "model")
    (folder / "policy.toml").write_text(POLICY)
    ours, theirs = multiprocessing.Pipe()
    made = Bench(folder, ours)
    made.clear()
    context = multiprocessing.get_context("spawn")
    server = context.Process(target=start_server, args=(theirs, made.arguments()), daemon=True)
    server.start()
    theirs.close()
    assert made.exit_code() == 0
    made.clear()
    began = time.monotonic()
    made.start()
    assert made.exit_code() == 0
    made.seconds = time.monotonic() - began
    made.weights = (made.out / "weights.safetensors").read_bytes()
    made.tensors = made.answer()["tensors"]
    yield made
    ours.close()
    server.join()


def _after(seconds: float) -> Callable[[Bench], bool]:
    began = time.monotonic()
    return lambda bench: time.monotonic() - began >= seconds


def _at_tensor(count: int) -> Callable[[Bench], bool]:
    return lambda bench: bench.finished_tensors() >= count


def _kill(bench: Bench, is_time: Callable[[Bench], bool]) -> None:
    """Start a compilation and kill it when it is time, if it has not ended before."""
    process = bench.start()
    while not bench.ended() and not is_time(bench):
        time.sleep(POLL_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    assert bench.exit_code() in (0, -signal.SIGKILL)


@pytest.mark.slow
def test_kills_at_random_moments(bench: Bench) -> None:
    chosen = random.Random(SEED)
    reused: list[int] = []
    for trial in range(KILLS):
        bench.clear()
        if trial % 2:
            _kill(bench, _at_tensor(chosen.randrange(1, bench.tensors)))
        else:
            _kill(bench, _after(chosen.uniform(0, bench.seconds)))
        if bench.out.exists():  # it had come to its end
            check_integrity(bench.out)
        else:
            bench.start()
            assert bench.exit_code() == 0, bench.answer()
            assert bench.answer()["tensors"] == bench.tensors
            reused.append(bench.answer()["reused"])
        assert (bench.out / "weights.safetensors").read_bytes() == bench.weights
        check_integrity(bench.out)
        assert [path.name for path in bench.out.parent.iterdir()] == ["out"]
    assert len(reused) >= KILLS // 2, "most compilations ended before they were killed"
    assert sum(count > 0 for count in reused) >= KILLS // 4, reused
    assert min(reused) == 0, "no kill fell into the time before the writing"


def test_two_compilations_to_one_output(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.clear()
    bench.start()
    while not bench.ended() and not (bench.out.parent / ".out.lock").exists():
        time.sleep(POLL_SECONDS)
    began = time.monotonic()
    assert main(bench.arguments()) == 2
    assert time.monotonic() - began < bench.seconds / 2, "it is refused before any work is done"
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "E0605"
    assert bench.exit_code() == 0
    assert (bench.out / "weights.safetensors").read_bytes() == bench.weights
