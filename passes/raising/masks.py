"""Say in words what an attention mask says in numbers.

Before:
    m = aten.le.Tensor(aten.unsqueeze(i, 0), aten.unsqueeze(i, 1))    # i = arange(T)
    y = effc.attention(q, k, v, m, False, None, None, 0.125, None, None)
After:
    y = effc.attention(q, k, v, None, True, None, None, 0.125, None, None)

A mask that depends on sizes alone is evaluated for several lengths and compared, entry by entry,
with what the words mean. The lengths are short ones and, for every whole number that the mask is
computed with, the lengths around it: a window shows at its own length.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar

import torch
from torch import fx

from effc.ir.journal import Journal, NearMiss
from effc.ir.passbase import Outcome, Pass, PassStage
from effc.ir.pattern import op_name
from effc.ir.program import Program, Stage
from effc.ir.size_only import Evaluation, size_only
from effc.kernels.attention.op import visible

ATTENTION = "effc.attention.default"
SHORT = (1, 2, 3, 6, 17)

# A mask of T tokens has T * T entries; longer ones are not evaluated.
LONGEST = 8192

# Added to a score, this much hides a key: its weight is zero in every element type.
HIDDEN = -9_000.0


@dataclass(frozen=True)
class Statement:
    """What a mask says.

    Attributes:
        causal: keys after the query are hidden.
        window: keys this many tokens or more before the query are hidden.
        chunk: only keys of the query's own chunk are visible.
    """

    causal: bool
    window: int | None = None
    chunk: int | None = None

    def visible(self, length: int) -> torch.Tensor:
        """Which key every query sees, [T, T]."""
        index = torch.arange(length)
        seen = visible(index[:, None], index[None, :], self.causal, self.window, self.chunk)
        return seen.expand(length, length)


@dataclass(frozen=True)
class RecognizeMasks(Pass):
    """Masks that depend on sizes alone become arguments of attention."""

    name: ClassVar[str] = "recognize-masks"
    stage: ClassVar[PassStage] = PassStage.RAISE
    after: ClassVar[tuple[str, ...]] = ("raise-attention", "raise-grouped-queries")

    def call(self, program: Program, journal: Journal) -> list[Outcome]:
        """One outcome per attention with a mask given as a tensor."""
        outcomes = []
        for stage in program.stages.values():
            masked = [n for n in stage.graph.nodes if op_name(n) == ATTENTION and n.args[3]]
            if not masked:
                continue
            reader = _Reader(program, stage)
            rewriter = self.rewriter(program, stage, journal)
            for node in masked:
                said = reader.read(node.args[3])  # type: ignore[arg-type]
                place = rewriter.graph_place(node)
                if isinstance(said, str):
                    journal.miss(NearMiss("recognize-mask", stage.name, node.name, said))
                    outcomes.append(Outcome(place, "skipped", said))
                    continue
                with rewriter.before(node):
                    new = rewriter.call(node.target, *_stated(node, said))  # type: ignore[arg-type]
                rewriter.replace(node, new)
                outcomes.append(Outcome(place, "applied"))
        return outcomes


def _stated(node: fx.Node, said: Statement) -> tuple[Any, ...]:
    """The arguments of an attention whose mask is said in words, with what it said before."""
    q, k, v, _, causal, window, chunk, *rest = node.args
    windows = [w for w in (window, said.window) if isinstance(w, int)]
    smallest = min(windows, default=None)
    chunk = chunk if said.chunk is None else said.chunk
    return (q, k, v, None, bool(causal) or said.causal, smallest, chunk, *rest)


class _Reader:
    """Reads the masks of one stage; layers that share a mask share the work."""

    def __init__(self, program: Program, stage: Stage) -> None:
        self.program = program
        self.stage = stage
        self.closed = size_only(stage)
        self.known: dict[fx.Node, Statement | str] = {}
        sizes = {s for spec in stage.inputs for s in spec.shape if isinstance(s, str)}
        tokens = [spec.shape[1] for spec in stage.inputs if len(spec.shape) == 2]
        self.tokens = tokens[0] if tokens else None
        self.others = sizes - {self.tokens}

    def read(self, mask: fx.Node) -> Statement | str:
        """The statement, or why there is none."""
        if mask not in self.known:
            self.known[mask] = self._read(mask)
        return self.known[mask]

    def _read(self, mask: fx.Node) -> Statement | str:
        if mask not in self.closed:
            culprit = _first_open(mask, self.closed)
            return f"the mask depends on values: {culprit}"
        if not isinstance(self.tokens, str):
            return "the length of the sequence is fixed"
        lengths = list(self._lengths(mask))
        if isinstance(lengths[-1], str):
            return lengths[-1]
        said: Statement | None = None
        for length in sorted(set(lengths), reverse=True):  # type: ignore[type-var]
            seen = self._evaluate(mask, length)  # type: ignore[arg-type]
            if isinstance(seen, str):
                return seen
            if seen is None:
                continue
            said = said or _statement(seen)
            if said is None or not torch.equal(seen, said.visible(seen.shape[0])):
                return "the mask is neither full, causal, a sliding window nor in chunks"
        return said or "the mask cannot be evaluated at any length"

    def _lengths(self, mask: fx.Node) -> Iterator[int | str]:
        yield from SHORT
        context = self.program.info.context
        for number in _whole_numbers(mask):
            if number > LONGEST and (context is None or number < context):
                if number < 1 << 31:
                    yield f"the mask is computed with {number}, longer than can be evaluated"
                    return
            elif 1 < number <= LONGEST:
                yield from (number - 1, number, number + 1, number + 3)

    def _evaluate(self, mask: fx.Node, length: int) -> torch.Tensor | str | None:
        """Which keys are visible, [T, T]; None when the graph does not hold for this length."""
        sizes = {str(self.tokens): length, **dict.fromkeys(self.others, 2)}
        try:
            value = Evaluation(self.program, self.stage, sizes)(mask)
        except (RuntimeError, IndexError, ValueError):
            return None
        if value.dim() > 4 or value.shape[-1] not in (1, length):
            return f"the mask is {list(value.shape)} for {length} tokens"
        if value.dtype != torch.bool:
            value = value.float()
            hidden = value <= HIDDEN
            if not bool((hidden | (value == 0)).all()):
                return "the mask adds more than zero and minus infinity: it is a bias"
            value = ~hidden
        value = value.expand(*value.shape[:-2], length, length) if value.dim() > 1 else value
        planes = value.expand(length, length) if value.dim() < 2 else value
        planes = planes.reshape(-1, length, length)
        if not bool((planes == planes[:1]).all()):
            return "the mask differs between sequences or heads"
        return planes[0]


def _statement(seen: torch.Tensor) -> Statement | None:
    """The statement that a mask of many tokens may be; whether it is one is checked elsewhere."""
    length = seen.shape[0]
    causal = not bool(seen.triu(1).any())
    last = int(seen[-1].sum())
    if last == length:
        return Statement(causal)
    window = Statement(causal, window=last)
    if torch.equal(seen, window.visible(length)):
        return window
    starts = (~seen[:, 0]).nonzero()
    chunk = int(starts[0]) if len(starts) else length
    return Statement(causal, chunk=chunk) if chunk else None


def _whole_numbers(mask: fx.Node) -> set[int]:
    """Integers that a value is computed with: literals, and sizes of tables."""
    found: set[int] = set()
    seen: set[fx.Node] = set()
    pending = [mask]
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        for value in _literals(node):
            hides = isinstance(value, float) and value <= HIDDEN
            if float(value).is_integer() and not hides:
                found.add(abs(int(value)))
        if node.op == "get_attr":
            found |= set(node.meta["val"].shape)
        pending += node.all_input_nodes
    return found


def _literals(node: fx.Node) -> Iterator[int | float]:
    flat: list[Any] = [*node.args, *node.kwargs.values()]
    while flat:
        value = flat.pop()
        if isinstance(value, list | tuple):
            flat += value
        elif isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
            yield value


def _first_open(node: fx.Node, closed: set[fx.Node]) -> str:
    """The first value on the way back that is no function of sizes."""
    while node.op == "call_function":
        step = next((n for n in node.all_input_nodes if n not in closed), None)
        if step is None:
            break
        node = step
    return str(node.target if node.op == "placeholder" else node.name)
