"""The commands in one place, and how the process ends."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from effc.cli.check import check
from effc.cli.compile import compile_
from effc.cli.frame import guarded
from effc.cli.inspect import inspect
from effc.cli.methods import methods
from effc.cli.output import print_error
from effc.cli.run import run
from effc.cli.show import show
from effc.diagnostics import EffcError, ExitCode
from effc.settings import version

app = typer.Typer(
    name="effc",
    help="An efficiency compiler for trained models.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

for name, command in (
    ("compile", compile_),
    ("run", run),
    ("inspect", inspect),
    ("show", show),
    ("check", check),
    ("methods", methods),
):
    app.command(name)(guarded(command))


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"effc {version()}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Options of effc itself; the docstring of the app is its help text."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: what follows `effc`; the process's own by default.

    Returns:
        The exit code, see `effc.diagnostics.ExitCode`; 130 after Ctrl-C, 141 when the reader of a
        pipe went away.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = typer.main.get_command(app)
    try:
        return int(command.main(given, prog_name="effc", standalone_mode=False) or 0)
    except Exception as error:
        # Usage errors are click's; typer brings its own copy of click or not, by version.
        if not hasattr(error, "format_message"):
            raise
        return _wrong_usage(error, as_json="--json" in given)


def _wrong_usage(error: Exception, *, as_json: bool) -> int:
    if as_json:
        text = error.format_message()  # type: ignore[attr-defined]
        print_error(EffcError("E0101", text, help="see `effc --help`"), as_json=True)
    else:
        error.show()  # type: ignore[attr-defined]
    return ExitCode.INPUT
