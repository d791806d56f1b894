"""Tests of shipped weights are skipped, with the reason, for families that ship none yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.zoo.__main__ import FAMILIES

PREFIX = "test_zoo_"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what nothing was trained for: a run takes most of an hour."""
    for item in items:
        if "shipped" in item.name and item.path.name.startswith(PREFIX):
            package = item.path.stem.removeprefix(PREFIX)
            for name in missing(package):
                reason = f"python -m examples.zoo train {name} has not been run"
                item.add_marker(pytest.mark.skip(reason=reason))


def missing(package: str) -> list[str]:
    """Families of a package of the zoo without weights in the repository."""
    return [
        family.name
        for family in FAMILIES.values()
        if package in (family.name, family.package) and not weights(family.checkpoint).is_file()
    ]


def weights(checkpoint: Path) -> Path:
    """The file that `train` writes."""
    return checkpoint / "model.safetensors"
