"""Let positions be an input where a decoder counts its tokens itself.

Before:
    def forward(ids, positions):                   # positions is not read
        p = aten.unsqueeze(aten.arange(T), 0)      # [1, T]
        e = aten.embedding(table, p)
After:
    def forward(ids, positions):
        e = aten.embedding(table, positions)

A cache feeds a sequence piece by piece, so the graph cannot know by itself where a piece stands.
What it counts is found by evaluation: a value that depends on sizes alone and equals
0, 1, ..., T - 1 plus a constant, for several lengths.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import fx

from effc.ir.journal import Journal, NearMiss
from effc.ir.passbase import Outcome, Pass, PassStage
from effc.ir.pattern import op_name
from effc.ir.program import Program, Stage
from effc.ir.rewriter import GraphRewriter, fake_mode_of
from effc.ir.size_only import Evaluation, size_only

LENGTHS = (1, 2, 7, 12)
SIZE = "aten.sym_size.int"
SHAPED = ("aten.reshape.default", "aten.view.default", "aten.expand.default")


@dataclass(frozen=True)
class FindPositions(Pass):
    """Counted positions become the input `positions`."""

    name: ClassVar[str] = "find-positions"
    stage: ClassVar[PassStage] = PassStage.RAISE
    after: ClassVar[tuple[str, ...]] = ("recognize-masks",)

    def call(self, program: Program, journal: Journal) -> list[Outcome]:
        """One outcome per value replaced; decoders whose `positions` is read are left alone."""
        stage = program.stages.get("forward")
        if stage is None or not _waits_for_positions(stage):
            return []
        rewriter = self.rewriter(program, stage, journal)
        # Counting that only masks needed must not be taken for positions.
        rewriter.erase_unused()
        outcomes = []
        for node, offset in _counted(program, stage):
            if node._erased:
                continue
            place = rewriter.graph_place(node)
            reason = _replace(rewriter, stage, node, offset)
            if reason:
                journal.miss(NearMiss("find-positions", stage.name, node.name, reason))
            outcomes.append(Outcome(place, "skipped" if reason else "applied", reason))
        return outcomes


def _waits_for_positions(stage: Stage) -> bool:
    names = [spec.name for spec in stage.inputs]
    if names != ["ids", "positions"]:
        return False
    return all(op_name(user) == SIZE for user in stage.placeholder("positions").users)


def _counted(program: Program, stage: Stage) -> list[tuple[fx.Node, float]]:
    """Values [1, T] or [B, T] that count tokens, and from which number; the first on each way."""
    closed = size_only(stage)
    spec = next(spec for spec in stage.inputs if spec.name == "ids")
    batch, tokens = spec.shape
    if not isinstance(tokens, str):
        return []
    evaluations = {}
    for length in LENGTHS:
        sizes = {tokens: length, **({batch: 2} if isinstance(batch, str) else {})}
        evaluations[length] = Evaluation(program, stage, sizes)
    found: list[tuple[fx.Node, float]] = []
    covered: set[fx.Node] = set()
    for node in stage.graph.nodes:
        if any(n in covered for n in node.all_input_nodes):
            covered.add(node)
            continue
        if node.op != "call_function" or node not in closed or not _is_row(node):
            continue
        offset = _offset(evaluations, node)
        if offset is not None:
            found.append((node, offset))
            covered.add(node)
    return found


def _is_row(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dim() == 2 and value.dtype != torch.bool


def _offset(evaluations: dict[int, Evaluation], node: fx.Node) -> float | None:
    """The first number of a value that counts tokens, None if it does something else."""
    offsets = set()
    for length, evaluate in evaluations.items():
        try:
            value = evaluate(node)
        except (RuntimeError, IndexError, ValueError):
            return None
        if value.shape[1] != length or value.shape[0] > 2:
            return None
        first = value[0, 0].item()
        if not bool((value == torch.arange(length) + first).all()):
            return None
        offsets.add(first)
    return offsets.pop() if len(offsets) == 1 else None


def _replace(rewriter: GraphRewriter, stage: Stage, node: fx.Node, offset: float) -> str:
    """Put the input in place of a counted value; the reason when the graph would not hold."""
    positions = stage.placeholder("positions")
    dtype = node.meta["val"].dtype
    with fake_mode_of(stage):
        counted = torch.empty(positions.meta["val"].shape, dtype=dtype)
    rows = _fixed_rows(stage, node)
    behind = _behind(stage, node, counted, rows)
    if isinstance(behind, str):
        return behind
    with rewriter.before(node):
        new: Any = positions
        if offset:
            new = rewriter.call(torch.ops.aten.add.Tensor, new, int(offset))
        if dtype != torch.int64:
            new = rewriter.call(torch.ops.aten.to.dtype, new, dtype)
        batch = rewriter.call(torch.ops.aten.sym_size.int, positions, 0) if rows else None
    rewriter.replace(node, new)
    for shaped, sizes in rows.items():
        rewriter.set_argument(shaped, 1, [batch, *sizes[1:]])
    for stale in behind:
        rewriter.retype(stale)
    return ""


def _fixed_rows(stage: Stage, node: fx.Node) -> dict[fx.Node, list[Any]]:
    """Calls behind a counted value that write "one row" into the shape of their result."""
    found: dict[fx.Node, list[Any]] = {}
    behind = {node}
    for user in stage.graph.nodes:
        if user.op != "call_function" or not behind & set(user.all_input_nodes):
            continue
        value = user.meta.get("val")
        if not isinstance(value, torch.Tensor) or not value.dim() or value.shape[0] != 1:
            continue
        behind.add(user)
        if op_name(user) in SHAPED and list(user.args[1])[:1] == [1]:  # type: ignore[arg-type]
            found[user] = list(user.args[1])  # type: ignore[arg-type]
    return found


def _behind(
    stage: Stage, node: fx.Node, value: torch.Tensor, rows: dict[fx.Node, list[Any]]
) -> list[fx.Node] | str:
    """The nodes whose type changes when a row becomes one row per sequence, or why none may."""
    changed: dict[fx.Node, Any] = {node: value}
    mode = fake_mode_of(stage)

    def now(n: fx.Node) -> Any:
        return changed.get(n, n.meta.get("val"))

    for user in stage.graph.nodes:
        if user.op != "call_function" or not any(n in changed for n in user.all_input_nodes):
            continue
        given = (user.args[0], [value.shape[0], *rows[user][1:]]) if user in rows else user.args
        args, kwargs = fx.map_arg((given, user.kwargs), now)
        try:
            with mode:
                changed[user] = user.target(*args, **kwargs)  # type: ignore[operator]
        except Exception as error:  # shape functions raise what they like
            reason = str(error).splitlines()[0]
            return f"{user.name} takes one row of positions for all sequences ({reason})"
    return [user for user in changed if user is not node]
