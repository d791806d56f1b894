"""What a frontend is: something that turns a source into a program."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from effc.ir.program import Program

CARRIED_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "vocab.txt",
)
"""Files beside a model that its artifact takes along."""


class Frontend(Protocol):
    """Turns one kind of source into a `Program` with a cacheless "forward" stage."""

    name: str

    def accepts(self, source: Any) -> bool:
        """Whether this frontend is the one for `source`."""
        ...

    def load(self, source: Any, **options: Any) -> Program:
        """Capture `source`.

        Raises:
            ModelError: the source cannot be read or captured; says why and what to do.
        """
        ...


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """The module in evaluation mode; the mode of every part of it comes back afterwards."""
    modes = {part: part.training for part in module.modules()}
    try:
        yield module.eval()
    finally:
        for part, training in modes.items():
            part.training = training
