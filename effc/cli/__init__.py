"""The command line. `effc.cli:main` is the console script."""

from effc.cli.app import app, main

__all__ = ["app", "main"]
