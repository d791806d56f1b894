"""Files and functions stay small enough to read."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.test_layering import SOURCES

FILE_LINES = 500
FUNCTION_LINES = 60
KERNEL_LINES = 120


def functions() -> Iterator[tuple[int, str]]:
    """Length and place of every function."""
    for module, path in SOURCES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                yield length, f"{module}.{node.name} (line {node.lineno})"


def test_files() -> None:
    lengths = {m: len(p.read_text(encoding="utf-8").splitlines()) for m, p in SOURCES.items()}
    long = {module: length for module, length in lengths.items() if length > FILE_LINES}
    assert not long


def test_functions() -> None:
    long = [
        f"{place}: {length} lines"
        for length, place in functions()
        if length > (KERNEL_LINES if ".triton." in place else FUNCTION_LINES)
    ]
    assert not long, "\n".join(long)
