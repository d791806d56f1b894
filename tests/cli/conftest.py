"""The command line with the compiler and the engine replaced by stand-ins."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Tokenizer:
    """One token per small letter; adding special tokens puts 99 in front."""

    def encode(self, text: str, add_special_tokens: bool = True) -> SimpleNamespace:
        ids = [LETTERS.index(letter) for letter in text if letter in LETTERS]
        return SimpleNamespace(ids=[99, *ids] if add_special_tokens else ids)

    def decode(self, ids: list[int]) -> str:
        return "".join(LETTERS[token] for token in ids if token < len(LETTERS))


class Model:
    """Continues [.., n] with n + 1, n + 2, ... and remembers how it was called."""

    def __init__(self, tokenizer: Tokenizer | None = None, finish: str = "length") -> None:
        self.tokenizer = tokenizer
        self.finish = finish
        self.program = SimpleNamespace(info=SimpleNamespace(files={}, source="toy"))
        self.calls: list[tuple[list[list[int]], dict[str, Any]]] = []

    def generate_result(self, ids: Any, *, streamer: Any = None, **options: Any) -> Any:
        self.calls.append((ids.tolist(), options))
        new = [ids[0, -1].item() + 1 + i for i in range(options["max_new_tokens"])]
        if streamer is not None:
            for tokens in (ids[0].tolist(), *([token] for token in new)):
                streamer.put(tokens)
            streamer.end()
        return SimpleNamespace(
            tokens=[new],
            finish_reasons=[self.finish],
            timings={"prefill_s": 0.5},
            counters={"pages": 1},
            notes=["the context ended"],
        )


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put attributes into a module that the commands import."""

    def put(module: str, **attributes: Any) -> None:
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(**attributes))  # type: ignore[arg-type]

    return put


@pytest.fixture
def model(install: Callable[..., None]) -> Callable[..., Model]:
    """Let `effc run` find a model."""

    def make(tokenizer: Tokenizer | None = None, finish: str = "length") -> Model:
        made = Model(tokenizer, finish)
        install("effc.api", load=lambda path: made)
        return made

    return make


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"
