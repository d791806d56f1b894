"""What all tests share: golden texts, fixed seeds, one tiny checkpoint."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# Several workers share the cores; torch's threads would wait for one another. Subprocesses too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

GOLDEN = Path(__file__).parent / "golden"
SEED = 20


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-golden` writes the expected texts instead of comparing with them."""
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden")


@dataclass(frozen=True)
class Golden:
    """The expected text of one test, in a file of its own.

    Attributes:
        path: tests/golden/<test file>/<test name>.txt.
        update: write instead of compare.
        command: what rewrites this file.
    """

    path: Path
    update: bool
    command: str

    def check(self, text: str) -> None:
        """Fail with a diff unless the file holds exactly this text."""
        text = text.rstrip("\n") + "\n"
        if self.update:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(text, encoding="utf-8")
            return
        if not self.path.is_file():
            pytest.fail(f"{self.path} is missing; write it with: {self.command}", pytrace=False)
        expected = self.path.read_text(encoding="utf-8")
        if text != expected:
            lines = difflib.unified_diff(
                expected.splitlines(), text.splitlines(), str(self.path), "now", lineterm="", n=2
            )
            shown = "\n".join(lines)
            pytest.fail(f"{shown}\nif this is meant: {self.command}", pytrace=False)


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """The golden text of the running test."""
    file = Path(str(request.node.path))
    name = request.node.name.replace("[", "-").rstrip("]").replace("/", "-")
    root = Path(str(request.config.rootpath))
    command = f"pytest {file.relative_to(root)} --update-golden"
    update = bool(request.config.getoption("--update-golden"))
    return Golden(GOLDEN / file.stem / f"{name}.txt", update, command)


@pytest.fixture(autouse=True)
def _fixed_seed(request: pytest.FixtureRequest) -> None:
    """Every test starts from the same random state; tests without torch stay without it."""
    import sys

    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(SEED)


@pytest.fixture(scope="session", autouse=True)
def _one_quiet_thread() -> Iterator[None]:
    """Results and times do not depend on the number of cores; libraries draw no bars."""
    import torch
    from transformers.utils import logging

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a Llama checkpoint: 2 layers, 4 heads over 2, tied embedding, random weights."""
    from tests.e2e.families import Family

    folder = tmp_path_factory.mktemp("tiny_llama")
    Family("Llama", {"num_hidden_layers": 2, "tie_word_embeddings": True}).save(folder)
    return folder
