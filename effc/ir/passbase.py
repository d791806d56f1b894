"""What a pass is: a frozen dataclass that turns a program into a program.

The base class checks what a pass declares: preconditions before, the verifier and postconditions
after, and that "modified" is what the journal saw.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import ClassVar

from torch import fx

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
        self.requires(program)
        seen, shape = len(journal.changes), _fingerprint(program)
        outcomes = self.call(program, journal)
        self.ensures(program)
        modified = len(journal.changes) > seen
        self._check_account(program, outcomes, modified, _fingerprint(program) != shape)
        seconds = time.perf_counter() - started
        return PassResult(outcomes, before, read_bytes(program), seconds, modified)

    def _check_account(
        self, program: Program, outcomes: list[Outcome], modified: bool, changed: bool
    ) -> None:
        """What a pass reports, what the journal saw and what is there must agree."""
        applied = any(o.status == "applied" for o in outcomes)
        lie = ""
        if changed and not modified:
            lie = "changed the program behind the journal's back"
        elif modified and not applied:
            lie = "changed the program but reports no place as applied"
        elif applied and not modified:
            lie = "reports places as applied but changed nothing"
        if lie:
            raise PassError(
                "E0404",
                f"pass {self.name!r} {lie}",
                where=program.info.source,
                help="change programs through self.rewriter(...) only, one outcome per place",
            )

    def rewriter(self, program: Program, stage: Stage, journal: Journal) -> GraphRewriter:
        """A rewriter that stamps this pass on what it makes."""
        return GraphRewriter(program, stage, journal, self.name)


def _fingerprint(program: Program) -> int:
    """A hash of all that a pass may change: signatures, nodes, arguments, kernels, weights."""
    stages = tuple(
        (name, stage.inputs, stage.outputs, tuple(map(_node_print, stage.graph.nodes)))
        for name, stage in program.stages.items()
    )
    weights = tuple((name, id(weight)) for name, weight in program.weights.items())
    return hash((stages, weights))


def _node_print(node: fx.Node) -> tuple[object, ...]:
    return (
        node.name,
        node.op,
        node.target,
        str(node.args),
        str(node.kwargs),
        node.meta.get("kernel"),
    )


def read_bytes(program: Program) -> int:
    """Bytes of the weights that the stages read, each counted once."""
    return sum(program.weights[name].nbytes for name in program.read_weights())
