"""What long work tells whoever waits for it.

The compiler, the evaluator and the writer of artifacts report to a `Progress`; the command line
draws it (`effc.cli.output`), a Python caller may pass one of its own. The one here is silent.
Standard library only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from effc.ir.manager import Verdict


class Progress:
    """Takes reports and keeps them to itself; subclasses show them."""

    def step(self, name: str, detail: str = "") -> None:
        """A long step begins; the one before it has ended.

        Args:
            name: what is done, e.g. "capturing the model".
            detail: what it is done to.
        """

    def advance(self, name: str, done: int, total: int) -> None:
        """Work inside a step.

        Args:
            name: what is being worked on, e.g. a weight.
            done: bytes or items finished so far.
            total: all bytes or items of the step.
        """

    def line(self, text: str) -> None:
        """A result that stays visible, one line."""

    def verdict(self, verdict: Verdict) -> None:
        """A pass has ended: a result with columns of its own."""


SILENT = Progress()
