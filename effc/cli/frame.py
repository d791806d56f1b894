"""What every command has in common: its flags and how it fails."""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated

import typer

from effc.cli.logs import start_logging
from effc.cli.output import print_error
from effc.diagnostics import EffcError, ExitCode, InternalError
from effc.settings import settings

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
DebugFlag = Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")]

INTERRUPTED = 128 + 2
BROKEN_PIPE = 128 + 13


def guarded(command: Callable[..., int | None]) -> Callable[..., int]:
    """A command that reports its errors and returns its exit code.

    Args:
        command: takes `debug` and `json` among its keyword arguments; what it returns is its exit
            code, None means done.
    """

    @functools.wraps(command)
    def run(*args: object, **kwargs: object) -> int:
        as_json, debug = bool(kwargs.get("json")), bool(kwargs.get("debug"))
        try:
            start_logging(settings())
            code = command(*args, **kwargs)
            sys.stdout.flush()
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            return INTERRUPTED
        except BrokenPipeError:
            _forget_stdout()
            return BROKEN_PIPE
        except Exception as error:
            return _fail(error, as_json=as_json, debug=debug)
        return code or ExitCode.DONE

    return run


def _fail(error: Exception, *, as_json: bool, debug: bool) -> int:
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, EffcError):
        print_error(error, as_json=as_json)
        return error.exit_code
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    help = None if debug else "run again with --debug for the traceback"
    print_error(InternalError("E0901", f"internal error: {text}", help=help), as_json=as_json)
    return ExitCode.INTERNAL


def _forget_stdout() -> None:
    """Nobody reads any more; the interpreter must not fail again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
