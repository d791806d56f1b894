"""The commands in one place, and how the process ends.

A command's module is imported when that command runs, so that `effc --help` and `effc check` do not
pay for the others.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from effc.cli.frame import guarded
from effc.cli.output import print_error
from effc.cli.usage import usage_error
from effc.diagnostics import ExitCode
from effc.settings import version

# Command -> (its function as "module:function", one line of help), in the order of `effc --help`.
COMMANDS: dict[str, tuple[str, str]] = {
    "compile": (
        "effc.cli.compile:compile_",
        "Compile a model under a policy into an artifact.",
    ),
    "run": ("effc.cli.run:run", "Continue a prompt."),
    "plan": ("effc.cli.plan:plan", "Show what a policy would do to a model, and at what cost."),
    "check": ("effc.cli.check:check", "Check a policy file."),
    "verify": (
        "effc.cli.verify:verify",
        "Measure an artifact against the original model, and check its gates.",
    ),
    "evaluate": (
        "effc.cli.evaluate:evaluate",
        "Score a model on tasks whose right answers are known.",
    ),
    "bench": ("effc.cli.bench:bench", "Measure how fast an artifact is."),
    "export": ("effc.cli.export:export", "Write an artifact for another runtime."),
    "inspect": (
        "effc.cli.inspect:inspect",
        "Show the sites of a model: where rules of a policy can act.",
    ),
    "show": ("effc.cli.show:show", "Show what is in an artifact."),
    "explain": ("effc.cli.explain:explain", "Explain an error code, a method or a pass."),
    "diff": (
        "effc.cli.diff:diff",
        "Compare two artifacts: policy, versions, programs, weights, cache, figures.",
    ),
    "methods": ("effc.cli.methods:methods", "List the methods, or describe one."),
    "doctor": ("effc.cli.doctor:doctor", "Say what this machine can do."),
    "schema": ("effc.cli.schema:schema", "Print the JSON schema of policies, for editors."),
}

_STYLE: dict[str, Any] = {
    "add_completion": False,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,
}


class _Commands(Mapping[str, Any]):
    """The commands by name, each built when it is first asked for."""

    def __getitem__(self, name: str) -> Any:
        location, _ = COMMANDS[name]
        module, _, function = location.partition(":")
        single = typer.Typer(**_STYLE)
        single.command(name)(guarded(getattr(import_module(module), function)))
        return typer.main.get_command(single)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _LazyGroup(TyperGroup):
    """`effc` itself: knows the names of its commands without having imported them."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.commands = _Commands()  # type: ignore[assignment]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The list of commands in `effc --help`."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


app = typer.Typer(
    name="effc",
    cls=_LazyGroup,
    help="An efficiency compiler for trained models.",
    no_args_is_help=True,
    **_STYLE,
)


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
        if not given:
            error.show()  # type: ignore[attr-defined]  # the help text
        else:
            print_error(usage_error(error, given, COMMANDS), as_json="--json" in given)
        return ExitCode.INPUT
