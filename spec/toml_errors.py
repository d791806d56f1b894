"""What is wrong with a text that is no TOML, in the words of our own messages.

`tomllib` says it in one sentence that ends with the place. The sentences differ little between
versions of Python; one that is not known here is passed on as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from effc.diagnostics import PolicyError, Span

_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_WORD = re.compile(r"[^\s,#\]}]*")
_KEY = re.compile(r"\s*\[{0,2}\s*([^\]=]*?)\s*[\]=]")


@dataclass(frozen=True)
class _Spot:
    """The line of a mistake and the offset that `tomllib` gives."""

    line: str
    at: int


Extent = tuple[int, int]
"""Offsets in the line: the first character of the mistake, and the one after its last."""


@dataclass(frozen=True)
class _Words:
    """What to say of one kind of mistake; `{}` stands for what the extent holds."""

    pattern: str
    message: str
    help: str
    extent: Callable[[_Spot], Extent] = lambda spot: (spot.at, spot.at + 1)


def _word(spot: _Spot) -> Extent:
    """The word that begins at the mistake."""
    found = _WORD.match(spot.line, spot.at)
    return spot.at, max(spot.at + 1, found.end() if found else 0)


def _key(spot: _Spot) -> Extent:
    """The key, or the table's name, at the beginning of the line."""
    found = _KEY.match(spot.line)
    return found.span(1) if found else (spot.at, spot.at + 1)


def _text(spot: _Spot) -> Extent:
    """From the last opening quote to the end of the line."""
    opening = max(spot.line.find('"'), spot.line.find("'"), 0)
    return opening, len(spot.line)


def _escape(spot: _Spot) -> Extent:
    """The last backslash before the mistake."""
    at = max(0, spot.line.rfind("\\", 0, spot.at + 1))
    return at, at + 1


_OPEN = "it begins here or on a line above"

_KNOWN = (
    _Words(r"Expected '='", "a key needs an equals sign and a value", "write KEY = VALUE"),
    _Words(r"Expected '(\]\]?)'", "the table's name is not closed", "add '{0}'"),
    _Words(r"Illegal character '(?:\\r)?\\n'|Expected \"'\"", "the text is not closed on its line",
           "add the closing quote", _text),
    _Words(r"Unterminated string|Expected \"'''\"", "a text is not closed",
           f"{_OPEN}; add the closing quotes"),
    _Words(r"Unclosed array", "a list is not closed here", f"{_OPEN}; add ',' or ']'"),
    _Words(r"Unclosed inline table", "an inline table is not closed here",
           "write it on one line, with '}}' at its end"),
    _Words(r"Cannot overwrite a value|Duplicate inline table key|Cannot redefine",
           "{} has a value already", "remove one of the two", _key),
    _Words(r"Cannot declare .* twice", "table [{}] is declared twice", "join both", _key),
    _Words(r"Cannot mutate immutable namespace", "{} adds to a table that is closed",
           "write all its keys between the braces", _key),
    _Words(r"Invalid statement|Invalid initial character", "a key is expected here",
           "keys consist of letters, digits, _ and -"),
    _Words(r"Unescaped '\\' in a string|Invalid hex|Escaped character",
           "a backslash begins nothing that TOML knows", "write \\\\, or put the text in '...'",
           _escape),
    _Words(r"Invalid date", "this is no date", "texts need quotes", _word),
    _Words(r"(?:Found invalid|Illegal) character", "a control character stands here",
           "remove it, or write it as \\uXXXX in a text"),
)  # fmt: skip


def toml_error(reason: str, text: str, file: str) -> PolicyError:
    """E0201 at its place, with the remedy.

    Args:
        reason: what `tomllib` said.
        text: the policy.
        file: the name to use in messages.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    found = _PLACE.search(reason)
    number = int(found[1]) if found and found[1] else _last(lines, reason)
    line = lines[number - 1]
    spot = _Spot(line, int(found[2]) - 1 if found and found[2] else len(line))
    message, help, (start, end) = _described(_PLACE.sub("", reason), spot)
    where = Span(file, number, start + 1, end - start, line)
    return PolicyError("E0201", f"not valid TOML: {message}", where=where, help=help)


def _last(lines: list[str], reason: str) -> int:
    """The number of the line to show for a mistake that `tomllib` finds at the end."""
    if reason.startswith('Expected "\'"'):  # it has read on, over ends of lines
        opened = (n for n, line in enumerate(lines, 1) if re.match(r"[^#'\"]*'[^']*$", line))
        return next(opened, len(lines))
    return len(lines) - (len(lines) > 1 and not lines[-1])


def _described(reason: str, spot: _Spot) -> tuple[str, str | None, Extent]:
    if reason.startswith("Invalid value"):
        return _no_value(spot, _word(spot))
    if reason.startswith("Expected newline"):
        return _left_over(spot)
    for words in _KNOWN:
        if known := re.match(words.pattern, reason):
            extent = words.extent(spot)
            inside = repr(spot.line[slice(*extent)])
            if words.message.startswith("table"):
                inside = inside.strip("'\"")
            return words.message.format(inside), words.help.format(*known.groups()), extent
    return f"{reason[:1].lower()}{reason[1:]}", None, (spot.at, spot.at + 1)


def _no_value(spot: _Spot, extent: Extent) -> tuple[str, str, Extent]:
    """What stands where a value should: nothing, or something that is none."""
    word = spot.line[slice(*extent)]
    if not word.strip("#").strip():
        return "there is no value here", "write one, or remove the key", extent
    if re.match(r"\s*[\w.-]+\s*=", spot.line[spot.at :]):
        return "a list above is not closed", "add ']'", extent
    help = f'texts need quotes: "{word}"'
    if re.fullmatch(r"[+-]?[\d._]+[^\W\d_]+|[+-]?[\d._]+%", word):
        help = f'a number stands alone; a text needs quotes: "{word}"'
    if word.lower() in ("true", "false"):
        help = f"write {word.lower()}"
    elif re.fullmatch(r"[+-]?\.\d+", word):
        help = f"write {word.replace('.', '0.')}"
    return f"{word!r} is no value", help, extent


def _left_over(spot: _Spot) -> tuple[str, str, Extent]:
    """What stands behind a value or a table's name on the same line."""
    char, before = spot.line[spot.at], spot.line[spot.at - 1]
    if char in ",;]}":
        return f"unexpected {char!r}", "remove it", (spot.at, spot.at + 1)
    start, end = _word(spot)
    if before.isalnum() or before in "_.":  # 16k, 50%, 2024-13-01
        start = max(spot.line.rfind(mark, 0, spot.at) for mark in " \t=[,{") + 1
        return _no_value(spot, (start, end))
    message = f"the line should end before {spot.line[start:end]!r}"
    return message, "give every key and every table a line of its own", (start, end)
