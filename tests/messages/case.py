"""What one entry of the table of messages is, and how it is made to happen."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

Spoil = Callable[[Path], None]
"""Changes a folder that holds `model`, `out` and perhaps `policy.toml`."""


@dataclass(frozen=True)
class Case:
    """Something wrong, and what it is met with.

    Attributes:
        wrong: what is wrong, for people; also the name of the test.
        policy: what stands in policy.toml, if there is one.
        command: the command line.
        python: Python that is run instead of a command; `ids`, `fast` and `torch` exist.
        spoil: what else happens to the folder beforehand.
        exit_code: of the command.
        environment: variables that are set.
    """

    wrong: str
    policy: str = ""
    command: str = "effc check policy.toml"
    python: str = ""
    spoil: Spoil | None = None
    exit_code: int = 2
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """For the test and its golden text."""
        return re.sub(r"[^a-z0-9]+", "-", self.wrong.lower()).strip("-")

    @property
    def arguments(self) -> list[str]:
        """The command line without the program."""
        return shlex.split(self.command)[1:]

    @property
    def shown(self) -> str:
        """What the user typed."""
        if self.python:
            return "\n".join(f">>> {line}" for line in self.python.splitlines())
        variables = "".join(f"{name}={value} " for name, value in self.environment.items())
        command = re.sub(r"\b(\d+)(,\1){9,}\b", r"\1,\1,...,\1", self.command)
        return f"$ {variables}{command}"


def rule(line: str = "", where: str = '"linear"', method: str = '"rtn"') -> str:
    """A policy of one rule, with a further line."""
    return (
        f"version = 1\n\n[[quantize]]\nwhere = {where}\nmethod = {method}\n{line}".rstrip() + "\n"
    )


def table(name: str, line: str) -> str:
    """A policy of one table with one line."""
    return f"version = 1\n\n[{name}]\n{line}\n"


def write(name: str, content: str | bytes) -> Spoil:
    """Overwrite a file."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data) and None


def remove(name: str) -> Spoil:
    """Remove a file."""
    return lambda folder: (folder / name).unlink()


def cut(name: str, size: int) -> Spoil:
    """Keep the first bytes of a file; with a negative size, all but the last."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size]) and None


def edit_json(name: str, **changes: object) -> Spoil:
    """Change entries of a JSON file."""

    def spoil(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return spoil


def config(**changes: object) -> Spoil:
    """Change entries of the model's configuration."""
    return edit_json("model/config.json", **changes)


def both(*spoils: Spoil) -> Spoil:
    """One after the other."""

    def spoil(folder: Path) -> None:
        for each in spoils:
            each(folder)

    return spoil
