"""Every error code that the source raises is explained, and every explained one is raised."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from effc.diagnostics import CATALOGUE
from tests.test_layering import SOURCES

CODE = re.compile(r"E\d{4}")


def codes() -> dict[str, list[str]]:
    """Code -> places of the string literals that are exactly this code."""
    found: dict[str, list[str]] = {}
    for module, path in SOURCES.items():
        if module == "effc.diagnostics":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and CODE.fullmatch(text):
                found.setdefault(text, []).append(f"{module}:{node.lineno}")
    return found


def test_every_code_is_in_the_catalogue() -> None:
    unknown = {code: places for code, places in codes().items() if code not in CATALOGUE}
    assert not unknown


def test_every_code_of_the_catalogue_is_raised() -> None:
    assert set(CATALOGUE) == set(codes())


def test_catalogue_reads_well() -> None:
    assert list(CATALOGUE) == sorted(CATALOGUE)
    assert all(CODE.fullmatch(code) for code in CATALOGUE)
    texts = list(CATALOGUE.values())
    assert len(set(texts)) == len(texts)
    assert all(text[0].islower() and not text.endswith(".") for text in texts if text[:4] != "PyTo")


def test_docstrings_name_no_unknown_code() -> None:
    for module, path in SOURCES.items():
        named = set(CODE.findall(path.read_text(encoding="utf-8")))
        assert named <= set(CATALOGUE), f"{module}: {named - set(CATALOGUE)}"


def test_documents_name_no_unknown_code() -> None:
    root = Path(__file__).parents[1]
    for path in [*root.glob("*.md"), *root.glob("docs/*.md")]:
        named = set(CODE.findall(path.read_text(encoding="utf-8")))
        assert named <= set(CATALOGUE), f"{path.name}: {named - set(CATALOGUE)}"
