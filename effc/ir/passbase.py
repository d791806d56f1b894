"""What a pass is: a frozen dataclass that turns a program into a program.

The base class checks what a pass declares: preconditions before, the verifier and postconditions
after, and that "modified" is what the journal saw.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import ClassVar

from effc.diagnostics import PassError
from effc.ir.journal import Journal
from effc.ir.program import Program, Stage
from effc.ir.rewriter import GraphRewriter


class PassStage(IntEnum):
    """When a pass runs; stages follow one another."""

    NORMALIZE = 0
    RAISE = 1
    TRANSFORM = 2
    LOWER = 3


class Semantics(Enum):
    """What a pass may do to the numbers."""

    EXACT = "exact"
    ROUNDING = "rounding"
    LOSSY = "lossy"


@dataclass(frozen=True)
class Outcome:
    """What a pass decided for one place.

    Attributes:
        place: the site or node.
        status: "applied", "skipped" or "refused".
        reason: why not, empty when applied.
    """

    place: str
    status: str
    reason: str = ""


@dataclass
class PassResult:
    """The verdict of one pass.

    Attributes:
        outcomes: one entry per place looked at.
        bytes_before, bytes_after: of the weights that the stages read.
        seconds: wall time.
        modified: whether the journal saw a change.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    bytes_before: int = 0
    bytes_after: int = 0
    seconds: float = 0.0
    modified: bool = False

    def count(self, status: str) -> int:
        """Number of places with a status."""
        return sum(outcome.status == status for outcome in self.outcomes)


@dataclass(frozen=True)
class Pass:
    """Base of all passes.

    Class attributes:
        name: kebab-case, unique in the registry.
        stage: when it runs.
        semantics: what it may do to the numbers.
        after: passes of the same stage that must come first if present.
        conflicts: passes that exclude this one, with the reason.
    """

    name: ClassVar[str]
    stage: ClassVar[PassStage]
    semantics: ClassVar[Semantics] = Semantics.EXACT
    after: ClassVar[tuple[str, ...]] = ()
    conflicts: ClassVar[dict[str, str]] = {}

    def requires(self, program: Program) -> None:
        """Raise `PassError` if the program is not fit for this pass."""

    def call(self, program: Program, journal: Journal) -> list[Outcome]:
        """Rewrite the program in place through rewriters and say what was decided where."""
        raise NotImplementedError

    def ensures(self, program: Program) -> None:
        """Raise `PassError` if the result is not what this pass promises."""

    def __call__(self, program: Program, journal: Journal) -> PassResult:
        """Run the pass with its contract checked."""
        started = time.perf_counter()
        before = read_bytes(program)
        seen = len(journal.changes)
        self.requires(program)
        outcomes = self.call(program, journal)
        self.ensures(program)
        modified = len(journal.changes) > seen
        if modified and not any(o.status == "applied" for o in outcomes):
            raise PassError(
                "E0404", f"pass {self.name!r} changed the program but reports no place as applied"
            )
        seconds = time.perf_counter() - started
        return PassResult(outcomes, before, read_bytes(program), seconds, modified)

    def rewriter(self, program: Program, stage: Stage, journal: Journal) -> GraphRewriter:
        """A rewriter that stamps this pass on what it makes."""
        return GraphRewriter(program, stage, journal, self.name)


def read_bytes(program: Program) -> int:
    """Bytes of the weights that the stages read, each counted once."""
    names = {name for stage in program.stages.values() for name in stage.weight_names()}
    return sum(program.weights[name].nbytes for name in names)
