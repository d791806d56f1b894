"""The pages of the error codes, one for every entry of `effc.diagnostics.CATALOGUE`.

They are written as markdown under `pages/`, a file per block of codes, in one fixed form: what
happened, why effc refuses, an example, what to do. Standard library only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PAGES = Path(__file__).parent / "pages"

_HEADING = re.compile(r"^## (E\d{4}): (.+)$", re.MULTILINE)
_FORM = re.compile(
    r"\s*\*\*What happened\.\*\* (?P<happened>.+?)\n\n"
    r"\*\*Why effc refuses\.\*\* (?P<why>.+?)\n\n"
    r"\*\*Example\.\*\*\n\n```(?P<language>\w+)\n(?P<example>.+?)```\n\n(?P<remark>.*?)"
    r"\*\*What to do\.\*\* (?P<remedy>.+?)\s*",
    re.DOTALL,
)


@dataclass(frozen=True)
class Page:
    """The explanation of one error code.

    Attributes:
        code: e.g. "E0203".
        title: the text of the catalogue.
        happened: what effc found.
        why: why it does not go on.
        example: something that gives this error.
        language: of the example: "toml", "sh", "python" or "json".
        remark: what belongs to the example, often empty.
        remedy: what to do.
    """

    code: str
    title: str
    happened: str
    why: str
    example: str
    language: str
    remark: str
    remedy: str


def blocks() -> dict[str, str]:
    """The blocks of codes, "E02" -> "the policy", in order."""
    return dict(_first_line(path).removeprefix("# ").split(": ", 1) for path in _files())


@cache
def pages() -> dict[str, Page]:
    """Code -> page, in the order of the codes.

    Raises:
        ValueError: a page is not in the form, or there are two for one code.
    """
    found: dict[str, Page] = {}
    for path in _files():
        _, *parts = _HEADING.split(path.read_text(encoding="utf-8"))
        for code, title, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            if code in found:
                raise ValueError(f"{path.name} explains {code} again")
            found[code] = _page(code, title, text)
    return found


def _files() -> list[Path]:
    return sorted(PAGES.glob("E*.md"))


def _first_line(path: Path) -> str:
    return path.read_text(encoding="utf-8").split("\n", 1)[0]


def _page(code: str, title: str, text: str) -> Page:
    form = _FORM.fullmatch(text)
    if form is None:
        raise ValueError(f"the page of {code} is not in the form of the others")
    fields = {name: _one_paragraph(value) for name, value in form.groupdict().items()}
    return Page(code, title, **fields | {"example": form["example"].rstrip("\n")})


def _one_paragraph(text: str) -> str:
    return " ".join(text.split())
