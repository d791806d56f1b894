"""docs/messages.md, made from the table and the golden texts."""

from __future__ import annotations

from pathlib import Path

from tests.messages.case import Case
from tests.messages.cases import CHAPTERS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "messages.md"
GOLDEN = ROOT / "tests" / "golden" / "test_messages"

_HEAD = """# Messages

What effc says when something is wrong. Every entry is a test: the message is printed exactly so,
but for `...`, `X` and the like where versions and machines differ. `effc explain CODE` explains a
code at length. In these examples `model` is a small Llama checkpoint and `out` an artifact of it.

This page is written by `python -m tests.messages --write` from `tests/messages/cases.py`.
"""


def golden(case: Case) -> Path:
    """The file of a case's message."""
    return GOLDEN / f"test_message-{case.name}.txt"


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for title, cases in CHAPTERS.items():
        parts += [f"## {title}\n", *map(_entry, cases)]
    return "\n".join(parts)


def _entry(case: Case) -> str:
    policy = f"```toml\n{case.policy.rstrip()}\n```\n\n" if case.policy else ""
    message = golden(case).read_text(encoding="utf-8").rstrip()
    return f"### {case.wrong[0].upper()}{case.wrong[1:]}\n\n{policy}```text\n{message}\n```\n"
