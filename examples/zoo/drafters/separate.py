"""Separate a Python file into its statements and its words (docstrings and comments)."""

from __future__ import annotations

import ast
import io
import textwrap
import tokenize
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace

# Fewer words are a label, a switch for a linter or a line of code out of use.
LEAST_WORDS = 5


@dataclass(frozen=True)
class Span:
    """A docstring, or the comment in one line; rows count from 0, columns in characters."""

    row: int
    column: int
    end_row: int
    end_column: int
    alone: bool  # nothing else in its lines
    needed: bool = False  # a docstring that is all there is in a body


@dataclass(frozen=True)
class Source:
    """A file's lines, each with its line break, and where its words are."""

    lines: tuple[str, ...]
    docstrings: tuple[Span, ...]
    comments: tuple[Span, ...]


def parse(text: str) -> Source | None:
    """Find the words in a file; there is no result for a file that is not Python."""
    # A lone carriage return is a line break for the parser and none for the tokenizer.
    if "\r" in text:
        return None
    lines = tuple(io.StringIO(text))
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(text)
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (SyntaxError, ValueError, tokenize.TokenError):
        return None
    return Source(
        lines,
        docstrings=tuple(_docstrings(tree, lines)),
        comments=tuple(_span(lines, *token.start, *token.end) for token in _comments(tokens)),
    )


def _comments(tokens: list[tokenize.TokenInfo]) -> Iterator[tokenize.TokenInfo]:
    """Find the comments; from Python 3.12 on there are some in f-strings, which are values."""
    depth = 0
    for token in tokens:
        name = tokenize.tok_name[token.type]
        depth += (name == "FSTRING_START") - (name == "FSTRING_END")
        if name == "COMMENT" and not depth:
            yield token


def _docstrings(tree: ast.Module, lines: tuple[str, ...]) -> Iterator[Span]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is None:
            continue
        words = node.body[0]
        assert words.end_lineno is not None and words.end_col_offset is not None, "parsed text"
        # The parser counts columns in bytes.
        start = len(lines[words.lineno - 1].encode()[: words.col_offset].decode())
        end = len(lines[words.end_lineno - 1].encode()[: words.end_col_offset].decode())
        needed = len(node.body) == 1 and not isinstance(node, ast.Module)
        yield _span(lines, words.lineno, start, words.end_lineno, end, needed)


def _span(
    lines: tuple[str, ...], row: int, column: int, end_row: int, end: int, needed: bool = False
) -> Span:
    """Make a span of rows that count from 1, as both parser and tokenizer count."""
    before, after = lines[row - 1][:column], lines[end_row - 1][end:]
    # A comment behind a docstring goes as well, so it does not count.
    alone = not before.strip() and not after.partition("#")[0].strip()
    return Span(row - 1, column, end_row - 1, end, alone, needed)


def code(source: Source) -> str:
    """Return the statements alone; a body that was all docstring becomes `pass`.

    The syntax tree is that of the file without its docstrings.
    """
    lines = list(source.lines)
    gone: set[int] = set()
    for span in source.comments:
        lines[span.row] = lines[span.row][: span.column].rstrip() + "\n"
    for span in source.docstrings:
        if span.alone and not span.needed:
            gone.update(range(span.row, span.end_row + 1))
        elif span.needed:
            rest = lines[span.end_row][span.end_column :]
            lines[span.row] = lines[span.row][: span.column] + "pass" + rest
            gone.update(range(span.row + 1, span.end_row + 1))
        # A docstring that shares its line with statements, as in `"words"; x = 1`, stays.
    gone |= {span.row for span in source.comments if span.alone}
    return "".join(_without(lines, gone))


def _without(lines: list[str], gone: set[int]) -> Iterator[str]:
    """Drop lines, and the blank lines after them that no longer hold anything apart."""
    last, dropped = "", False
    for row, line in enumerate(lines):
        if row in gone:
            dropped = True
        elif line.strip() or not dropped or (last and last[-1] != ":"):
            yield line
            last, dropped = line.strip(), False


def prose(source: Source) -> str:
    """Return docstrings and blocks of comments as they stand in the file, not indented."""
    pieces = []
    for span in sorted([*source.docstrings, *_comment_blocks(source)], key=lambda span: span.row):
        lines = list(source.lines[span.row : span.end_row + 1])
        lines[-1] = lines[-1][: span.end_column]
        lines[0] = " " * span.column + lines[0][span.column :]
        text = textwrap.dedent("".join(lines))
        if len(text.split()) >= LEAST_WORDS:
            pieces.append(text + "\n")
    return "\n".join(pieces)


def _comment_blocks(source: Source) -> list[Span]:
    """Join comments that stand below one another; those behind a statement are left out."""
    blocks: list[Span] = []
    for span in source.comments:
        if not span.alone:
            continue
        last = blocks[-1] if blocks else None
        if last and (last.column, last.end_row) == (span.column, span.row - 1):
            blocks[-1] = replace(last, end_row=span.row, end_column=span.end_column)
        else:
            blocks.append(span)
    return blocks
