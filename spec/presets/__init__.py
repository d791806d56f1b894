"""Policies that ship with effc: ordinary policy files, to use as they are, to combine, to copy.

`--preset int4 --preset gated` reads both, one after the other; `effc.spec.fragments` says how.
"""

from __future__ import annotations

from pathlib import Path

from effc.diagnostics import PolicyError, did_you_mean

FOLDER = Path(__file__).parent


def names() -> tuple[str, ...]:
    """The presets, in alphabetical order."""
    return tuple(sorted(file.stem for file in FOLDER.glob("*.toml")))


def path(name: str) -> Path:
    """The file of a preset, for `load_policy`.

    Raises:
        PolicyError: E0210: there is no such preset.
    """
    if name not in names():
        message, help = f"there is no preset {name!r}", did_you_mean(name, names())
        raise PolicyError("E0210", message, where=f"--preset {name}", help=help)
    return FOLDER / f"{name}.toml"
