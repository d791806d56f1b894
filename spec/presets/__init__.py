"""Policies that ship with effc: ordinary policy files, to use as they are or to copy."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from effc.diagnostics import PolicyError, did_you_mean


def names() -> tuple[str, ...]:
    """The presets, in alphabetical order."""
    entries = (entry.name for entry in files(__name__).iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in entries if name.endswith(".toml")))


def path(name: str) -> Path:
    """The file of a preset, for `load_policy`.

    Raises:
        PolicyError: E0210: there is no such preset.
    """
    if name not in names():
        raise PolicyError("E0210", f"no preset {name!r}", help=did_you_mean(name, names()))
    return Path(str(files(__name__) / f"{name}.toml"))
