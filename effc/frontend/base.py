"""What a frontend is: something that turns a source into a program."""

from __future__ import annotations

from typing import Any, Protocol

from effc.ir.program import Program


class Frontend(Protocol):
    """Turns one kind of source into a `Program` with a cacheless "forward" stage."""

    name: str

    def accepts(self, source: Any) -> bool:
        """Whether this frontend is the one for `source`."""
        ...

    def load(self, source: Any, **options: Any) -> Program:
        """Capture `source`.

        Raises:
            ModelError: the source cannot be read or captured; says why and what to do.
        """
        ...
