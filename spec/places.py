"""Where a value of the policy stands: a span of the TOML text, or a key path of a dict.

The values come from `tomllib`; this scanner finds only where they stand. It is written by hand,
not with lark: `tomllib` has already refused everything that is not TOML, so what is left is a walk
over valid text, while a second grammar would be as long, and would have to be built at every start.
A property test keeps scanner and `tomllib` in agreement.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field, replace
from typing import Protocol

from effc.diagnostics import Span

KeyPath = tuple[str | int, ...]
"""Keys and list indices from the root of the policy, e.g. `("quantize", 0, "where")`."""

Place = Span | str
"""What errors point at: a span of a file, or a key path for a policy given as a dict."""

_BLANK = re.compile(r"[ \t]*")
_GAP = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_REST_OF_LINE = re.compile(r"[^\n]*\n?")
_KEY = re.compile(r'[A-Za-z0-9_-]+|"(?:\\.|[^"\\])*"|\'[^\']*\'')
_SCALAR = re.compile(
    r'"""(?:\\.|[^\\])*?""""{0,2}'  # up to two quotes may stand before the closing three
    r"|'''.*?''''{0,2}"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'"
    r"|\d{4}-\d\d-\d\d \d[^\s,#\]}]*"  # a date and a time with a space between
    r"|[^\s,#\]}]+",
    re.DOTALL,
)


def narrowed(place: Place, text: str, start: int, end: int) -> Place:
    """The place of `text[start:end]` inside the string value that stands at `place`.

    The whole value where characters and columns do not agree: key paths, strings with escapes,
    strings of several lines.
    """
    if not isinstance(place, Span):
        return place
    inside = place.column  # offset of the first character after the quote
    if place.length != len(text) + 2 or place.text[inside : inside + len(text)] != text:
        return place
    return replace(place, column=inside + 1 + start, length=max(1, end - start))


@dataclass(frozen=True)
class Extent:
    """Offsets of the first character and of the one after the last."""

    start: int
    end: int


class Places(Protocol):
    """Finds the place of a key and of a value."""

    @property
    def files(self) -> tuple[str, ...]:
        """The files that spans name, in reading order."""
        ...

    def key(self, path: KeyPath) -> Place:
        """The place of the key, or of the table header, at `path`."""
        ...

    def value(self, path: KeyPath) -> Place:
        """The place of the value at `path`; of its header for a table."""
        ...


@dataclass(frozen=True)
class DictPlaces:
    """Key paths such as `quantize[0].where`, for a policy without a text."""

    files: tuple[str, ...] = ()

    def key(self, path: KeyPath) -> Place:
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
        return "".join(steps).removeprefix(".") or "policy"

    def value(self, path: KeyPath) -> Place:
        return self.key(path)


@dataclass(frozen=True)
class TextPlaces:
    """Spans in a TOML text.

    Attributes:
        file: the name that spans carry.
        text: the policy, lines separated by a single newline character.
        keys: extent of each key, at its first mention.
        values: extent of each value written after an equals sign or in a list.
    """

    file: str
    text: str
    keys: dict[KeyPath, Extent]
    values: dict[KeyPath, Extent]

    @property
    def files(self) -> tuple[str, ...]:
        return (self.file,)

    def key(self, path: KeyPath) -> Place:
        return self._span(self.keys.get(path) or self.values.get(path))

    def value(self, path: KeyPath) -> Place:
        return self._span(self.values.get(path) or self.keys.get(path))

    def _span(self, extent: Extent | None) -> Span:
        if extent is None:
            return Span(self.file, 1, 1, 1, self.text.split("\n", 1)[0])
        line_start = self.text.rfind("\n", 0, extent.start) + 1
        line = self.text[line_start:].split("\n", 1)[0]
        column = extent.start - line_start + 1
        # A value of several lines is marked on its first line.
        length = min(extent.end - extent.start, len(line) - column + 1)
        return Span(self.file, self.text.count("\n", 0, extent.start) + 1, column, length, line)


def scan(text: str, file: str) -> TextPlaces:
    """Find every key and value of a text that `tomllib` accepts.

    Args:
        text: valid TOML.
        file: the name that spans carry.
    """
    scanner = _Scanner(text.replace("\r\n", "\n"))
    scanner.document()
    return TextPlaces(file, scanner.text, scanner.keys, scanner.values)


@dataclass
class _Scanner:
    """Recursive descent over valid TOML; `at` is the offset of the next character."""

    text: str
    at: int = 0
    keys: dict[KeyPath, Extent] = field(default_factory=dict[KeyPath, Extent])
    values: dict[KeyPath, Extent] = field(default_factory=dict[KeyPath, Extent])
    # How many tables each array of tables has so far.
    lengths: dict[KeyPath, int] = field(default_factory=dict[KeyPath, int])

    def document(self) -> None:
        table: KeyPath = ()
        self._take(_GAP)
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._take(_REST_OF_LINE)
            self._take(_GAP)

    def _header(self) -> KeyPath:
        array = self.text.startswith("[[", self.at)
        self.at += 2 if array else 1
        path: KeyPath = ()
        *parents, (last, extent) = self._dotted_key()
        for name, parent in parents:
            path = self._mention((*path, name), parent)
            if path in self.lengths:
                path = (*path, self.lengths[path] - 1)  # the latest table of the array
        path = self._mention((*path, last), extent)
        if array:
            index = self.lengths.get(path, 0)
            self.lengths[path] = index + 1
            path = self._mention((*path, index), extent)
        return path

    def _pair(self, table: KeyPath) -> None:
        path = table
        for name, extent in self._dotted_key():
            path = self._mention((*path, name), extent)
        self.at += 1  # the equals sign
        self._take(_BLANK)
        self._value(path)

    def _dotted_key(self) -> list[tuple[str, Extent]]:
        parts: list[tuple[str, Extent]] = []
        while not parts or self.text[self.at] == ".":
            if parts:
                self.at += 1  # the dot
            self._take(_BLANK)
            start = self.at
            word = self._take(_KEY)
            parts.append((_unquoted(word), Extent(start, self.at)))
            self._take(_BLANK)
        return parts

    def _value(self, path: KeyPath) -> None:
        start = self.at
        opening = self.text[self.at]
        if opening == "[":
            self._items("]", path)
        elif opening == "{":
            self._items("}", path)
        else:
            self._take(_SCALAR)
        self.values[path] = Extent(start, self.at)

    def _items(self, closing: str, path: KeyPath) -> None:
        """The inside of a list or of an inline table, up to `closing`."""
        self.at += 1
        self._take(_GAP)
        index = 0
        while self.text[self.at] != closing:
            if closing == "]":
                self._value((*path, index))
            else:
                self._pair(path)
            index += 1
            self._take(_GAP)
            if self.text[self.at] == ",":
                self.at += 1
                self._take(_GAP)
        self.at += 1

    def _mention(self, path: KeyPath, extent: Extent) -> KeyPath:
        self.keys.setdefault(path, extent)
        return path

    def _take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        assert found is not None, f"not valid TOML at offset {self.at}"
        self.at = found.end()
        return found.group()


def _unquoted(word: str) -> str:
    # A quoted key follows the rules of strings, which tomllib knows.
    return tomllib.loads(f"key = {word}")["key"] if word[0] in "\"'" else word
