"""Texts that are no TOML: the place, the reason, and a remedy in our own words."""

from __future__ import annotations

import tomllib

import pytest

from effc.diagnostics import PolicyError, Span
from effc.spec.parse import parse_policy

# Text -> what is marked, what is said, what to do.
MISTAKES: dict[str, tuple[str, str, str]] = {
    "a = cpu": ("cpu", "'cpu' is no value", 'texts need quotes: "cpu"'),
    "a = [1, cpu]": ("cpu", "'cpu' is no value", 'texts need quotes: "cpu"'),
    "a = 16k": ("16k", "'16k' is no value", 'a number stands alone; a text needs quotes: "16k"'),
    "a = 50%": ("50%", "'50%' is no value", 'a number stands alone; a text needs quotes: "50%"'),
    "a = True": ("True", "'True' is no value", "write true"),
    "a = -.5": ("-.5", "'-.5' is no value", "write -0.5"),
    "a = # nothing": ("#", "there is no value here", "write one, or remove the key"),
    "a = 1;": (";", "unexpected ';'", "remove it"),
    "[a]]": ("]", "unexpected ']'", "remove it"),
    "[a] b = 1": (
        "b",
        "the line should end before 'b'",
        "give every key and every table a line of its own",
    ),
    "a: 1": (":", "a key needs an equals sign and a value", "write KEY = VALUE"),
    "= 1": ("=", "a key is expected here", "keys consist of letters, digits, _ and -"),
    "[a": ("", "the table's name is not closed", "add ']'"),
    "[[a]\nb = 1": ("]", "the table's name is not closed", "add ']]'"),
    'a = "x\nb = 1': ('"x', "the text is not closed on its line", "add the closing quote"),
    "a = 'x\nb = 1": ("'x", "the text is not closed on its line", "add the closing quote"),
    'a = """x': (
        "",
        "a text is not closed",
        "it begins here or on a line above; add the closing quotes",
    ),
    "a = [1": (
        "",
        "a list is not closed here",
        "it begins here or on a line above; add ',' or ']'",
    ),
    "a = [1,\nb = 2": ("b", "a list above is not closed", "add ']'"),
    "a = { b = 1\n}": (
        "",
        "an inline table is not closed here",
        "write it on one line, with '}' at its end",
    ),
    "a = 1\na = 2": ("a", "'a' has a value already", "remove one of the two"),
    "a = 1\na.b = 2": ("a.b", "'a.b' has a value already", "remove one of the two"),
    "[a]\nb = 1\n[a]\n": ("a", "table [a] is declared twice", "join both"),
    "a = { b = 1 }\na.c = 2": (
        "a.c",
        "'a.c' adds to a table that is closed",
        "write all its keys between the braces",
    ),
    'a = "\\q"': (
        "\\",
        "a backslash begins nothing that TOML knows",
        "write \\\\, or put the text in '...'",
    ),
    "a = 'x\x01'": (
        "\x01",
        "a control character stands here",
        "remove it, or write it as \\uXXXX in a text",
    ),
}


@pytest.mark.parametrize("text", MISTAKES)
def test_what_is_said(text: str) -> None:
    marked, message, help = MISTAKES[text]
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, methods={})
    error, where = caught.value, caught.value.where
    assert (error.code, error.message, error.help) == ("E0201", f"not valid TOML: {message}", help)
    assert isinstance(where, Span) and where.text in text.split("\n")
    assert where.text[where.column - 1 :][: where.length] == marked


def test_a_sentence_that_is_not_known_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(text: str) -> None:
        raise ValueError("Something new (at line 1, column 3)")

    monkeypatch.setattr(tomllib, "loads", refuse)
    with pytest.raises(PolicyError, match=r":1:3: error\[E0201\]: not valid TOML: something new"):
        parse_policy("a = 1", methods={})
