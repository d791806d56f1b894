"""Importing effc costs nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "triton", "onnx", "lark", "numpy", "rich", "typer", "networkx")


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded(code: str) -> set[str]:
    return set(run(f"{code}\nimport sys; print(*sys.modules)").split())


@pytest.mark.parametrize(
    ("code", "absent"),
    (
        ("import effc", HEAVY),
        ("import effc; effc.Policy; effc.EffcError; dir(effc)", ("torch", "transformers", "lark")),
        ("import effc.passes.registry as r; r.method_infos()", ("torch", "transformers")),
        (
            "import effc.compiler",
            ("transformers", "onnx", "lark"),
        ),  # triton comes with torch.export
    ),
)
def test_import_loads_nothing_heavy(code: str, absent: tuple[str, ...]) -> None:
    assert not loaded(code) & set(absent)


def test_import_takes_less_than_a_tenth_of_a_second() -> None:
    """Over a bare interpreter, best of five."""
    assert best("import effc") - best("pass") < 0.1


def best(code: str) -> float:
    times = []
    for _ in range(5):
        started = time.perf_counter()
        run(code)
        times.append(time.perf_counter() - started)
    return min(times)
