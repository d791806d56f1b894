"""The environment variables of effc; nothing else reads `os.environ`.

`ENVIRONMENT.md` is the same table for people. Standard library only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from effc.diagnostics import EffcError


@dataclass(frozen=True)
class Variable:
    """One environment variable.

    Attributes:
        name: as it is set in the shell.
        default: the value when it is unset or empty.
        values: what is allowed, for people.
        pattern: what is allowed, as a regular expression.
        help: what it does.
    """

    name: str
    default: str
    values: str
    pattern: str
    help: str


VARIABLES: dict[str, Variable] = {
    "log": Variable(
        "EFFC_LOG",
        "warning",
        "debug, info, warning, error",
        "debug|info|warning|error",
        "How much the log on standard error says.",
    ),
    "log_format": Variable(
        "EFFC_LOG_FORMAT",
        "text",
        "text, json",
        "text|json",
        "Lines for people, or one JSON object per line: time, level, logger, message.",
    ),
    "print": Variable(
        "EFFC_PRINT",
        "",
        "after:<pass>, all, rewrites",
        "(after:[a-z0-9-]+|all|rewrites)?",
        "Print the program as Python after one pass or every pass, or each rewrite as it happens.",
    ),
    "dump": Variable(
        "EFFC_DUMP",
        "",
        "a folder",
        ".*",
        "Write the program after every pass into this folder, numbered.",
    ),
    "trace": Variable(
        "EFFC_TRACE",
        "",
        "a file",
        ".*",
        "Append every rewrite to this file as a JSON line: n, pass, stage, kind, node, detail.",
    ),
    "stop_after": Variable(
        "EFFC_STOP_AFTER",
        "",
        "a number from 0 on",
        "[0-9]*",
        "Leave out the passes of the canonical form from the n-th rewrite on (n as in EFFC_TRACE).",
    ),
    "kernels": Variable(
        "EFFC_KERNELS",
        "auto",
        "auto, reference",
        "auto|reference",
        "Run the kernels that the compiler chose, or the reference of every operator.",
    ),
    "verify": Variable(
        "EFFC_VERIFY",
        "1",
        "0, 1, 2",
        "[012]",
        "Check the program never, between stages of the compiler, or after every pass with types.",
    ),
}


@dataclass(frozen=True)
class Settings:
    """The values of the variables in `VARIABLES`, by the same keys."""

    log: str
    log_format: str
    print: str
    dump: str
    trace: str
    stop_after: int | None
    kernels: str
    verify: int


def version() -> str:
    """The version of effc, "unknown" where it runs without having been installed."""
    from importlib import metadata  # slow, and needed by nobody else

    try:
        return metadata.version("effc")
    except metadata.PackageNotFoundError:
        return "unknown"


def settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the variables.

    Args:
        environment: names and values; the process's own by default.

    Raises:
        EffcError: E0104 for a value that is not allowed.
    """
    source = os.environ if environment is None else environment
    texts = {field.name: _read(VARIABLES[field.name], source) for field in fields(Settings)}
    stop_after = int(texts["stop_after"]) if texts["stop_after"] else None
    numbers = {"verify": int(texts["verify"]), "stop_after": stop_after}
    return Settings(**texts | numbers)  # type: ignore[arg-type]


def unknown_variables(environment: Mapping[str, str] | None = None) -> list[str]:
    """Names that start with `EFFC_` and mean nothing, such as a misspelt variable."""
    source = os.environ if environment is None else environment
    known = {variable.name for variable in VARIABLES.values()}
    return sorted(name for name in source if name.startswith("EFFC_") and name not in known)


def cache_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Where compiled code and other things that can be made again are kept, per user."""
    source = os.environ if environment is None else environment
    base = source.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "effc"


def _read(variable: Variable, environment: Mapping[str, str]) -> str:
    text = environment.get(variable.name) or variable.default
    if not re.fullmatch(variable.pattern, text):
        raise EffcError(
            "E0104",
            f"{text!r} is none of its values: {variable.values}",
            where=variable.name,
            help=f"unset {variable.name}, or give it one of these values",
        )
    return text
