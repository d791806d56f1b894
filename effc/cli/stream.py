"""Tokens as text while they come."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Protocol, TextIO


class Decoder(Protocol):
    """The part of `tokenizers.Tokenizer` that turns ids into text."""

    def decode(self, ids: list[int]) -> str: ...


class TextStream:
    """Prints tokens as they are generated, with the protocol of transformers' streamers.

    A token is printed once its text is final: a character may be spread over several tokens, and a
    blank may depend on the token before. Each decode covers only the last word or so.

    Args:
        decoder: the tokenizer; None prints token ids.
        file: where to print.
    """

    def __init__(self, decoder: Decoder | None, file: TextIO | None = None) -> None:
        self._decoder = decoder
        self._file = file or sys.stdout
        self._prompt_seen = False
        self._known: list[int] = []
        self._fresh: list[int] = []
        self._first = True

    def put(self, value: Iterable[int]) -> None:
        """Take tokens; the first call brings the prompt, which is not printed."""
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        for token in _flat(value):
            self._put_id(token) if self._decoder is None else self._put_text(token, self._decoder)

    def end(self) -> None:
        """Print what is left, even of an unfinished character."""
        if self._decoder is not None and self._fresh:
            self._write(self._new_text(self._decoder))
        self._write("\n")

    def _put_id(self, token: int) -> None:
        self._write(str(token) if self._first else f",{token}")
        self._first = False

    def _put_text(self, token: int, decoder: Decoder) -> None:
        self._fresh.append(token)
        text = self._new_text(decoder)
        if text and not text.endswith("\ufffd"):
            self._write(text)
            self._known, self._fresh = self._fresh, []

    def _new_text(self, decoder: Decoder) -> str:
        """The text that the fresh tokens add behind the known ones."""
        known = decoder.decode(self._known) if self._known else ""
        return decoder.decode(self._known + self._fresh)[len(known) :]

    def _write(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()


def _flat(value: object) -> list[int]:
    """Token ids of a tensor [1], a list or a single number."""
    listed = value.tolist() if hasattr(value, "tolist") else value  # type: ignore[attr-defined]
    if isinstance(listed, int):
        return [listed]
    return [token for item in listed for token in _flat(item)]  # type: ignore[attr-defined]
