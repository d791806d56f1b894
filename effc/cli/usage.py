"""Wrong command lines, said in the same words as every other mistake.

The parser's own errors are read by their attributes, not by their classes: typer brings its own
copy of click or not, by version.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from typing import Any

from effc.diagnostics import EffcError, nearest

_SAID: tuple[tuple[str, str], ...] = (
    (r"unexpected extra arguments?(?:\(s\))? \((?P<name>\S+).*\)", "unexpected argument {name!r}"),
    (r"[Oo]ption '(?P<name>\S+)' requires an argument", "{name} needs a value"),
    (r"[Oo]ption '(?P<name>\S+)' does not take a value", "{name} takes no value"),
)
"""What the parser says where it leaves nothing but a sentence, and our words for it."""


def usage_error(error: Any, given: Sequence[str], commands: Collection[str]) -> EffcError:
    """E0101 for what the parser of command lines refused.

    Args:
        error: raised by click, or by typer's copy of it.
        given: what follows `effc`.
        commands: all commands.
    """
    context = getattr(error, "ctx", None)
    called = next((word for word in given if word in commands), None)
    program = context.command_path if context else f"effc {called}" if called else "effc"
    message, meant = _described(error, commands)
    hint = f"did you mean {meant!r}? " if meant else ""
    return EffcError("E0101", message, where=program, help=f"{hint}see `{program} --help`")


def _described(error: Any, commands: Collection[str]) -> tuple[str, str | None]:
    """What was wrong, and what may have been meant."""
    parameter = getattr(error, "param", None)
    if parameter is not None:
        return _parameter(parameter, str(error.message)), None
    text = str(error.format_message())
    if hasattr(error, "possibilities"):
        plain = {str(option).lstrip("-"): option for option in error.possibilities or ()}
        near = difflib.get_close_matches(error.option_name.lstrip("-"), plain, n=1)
        return f"there is no option {error.option_name}", plain[near[0]] if near else None
    if command := re.match(r"No such command '(.*?)'", text):
        return f"there is no command {command[1]!r}", nearest(command[1], commands)
    for pattern, words in _SAID:
        if found := re.search(pattern, text):
            return words.format(**found.groupdict()), None
    return text.rstrip("."), None


def _parameter(parameter: Any, message: str) -> str:
    """One option or argument that is missing, or holds what it does not take."""
    option = str(parameter.opts[-1]).startswith("-")
    name = max(parameter.opts, key=len) if option else str(parameter.human_readable_name).upper()
    if not message:
        return f"{name} is missing"
    found = re.match(r"(.*?) is not (?:a valid|in the range)", message)
    return f"{name} takes {_taken(parameter.type)}, found {found[1]}" if found else message


def _taken(kind: Any) -> str:
    """What a parameter takes, in words."""
    words = "an integer" if str(kind.name).startswith("int") else "a number"
    least = getattr(kind, "min", None)
    return words if least is None else f"{words} >= {least}"
