"""Loops whose number of rounds is only known at run time: `while_loop` over two stages.

    while_loop(more, body, carried, additional) -> carried, after the last round

Carried are the number of the round, whether to go on, the loop's own values, and for each scan
output what has been collected. What the loop reads from around it is additional.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import onnx_ir
import torch
from torch import fx

from effc.frontend.onnx import branches
from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.values import Unsupported, Value
from effc.ir.program import StageRef

aten = torch.ops.aten

Meta: TypeAlias = dict[str, Any]
"""Metadata of a node: its fake value, and "open", the sizes that change from round to round."""

_OWN = 2  # carried by every loop: the number of the round, and whether to go on


@dataclass
class _Round:
    """One round as a stage that is being written.

    Attributes:
        builder: of the stage.
        inputs: number, going, and the loop's values before the round.
        going: whether there is another round.
        values: the loop's values after the round.
        scanned: what is collected of it.
    """

    builder: Builder
    inputs: list[fx.Node]
    going: Value
    values: list[Value]
    scanned: list[Value]


@dataclass
class WhileLoop:
    """One Loop.

    Attributes:
        g: writes the graph around it.
        body: (number, going, *values) -> (going, *values, *scan outputs).
        count: how many values it carries.
    """

    g: Builder
    body: onnx_ir.Graph
    count: int

    def translate(
        self, rounds: Value, condition: Value, carried: Sequence[Value]
    ) -> tuple[Value, ...]:
        """The values after the last round, then the collected scan outputs.

        Args:
            rounds: how many at most, None for any number.
            condition: whether there is a first one, None for yes.
            carried: the values before it.
        """
        g = self.g
        going = torch.tensor(True) if condition is None else condition
        start = [g.node(torch.tensor(0)), g.node(_scalar(g, going)), *map(g.node, carried)]
        metas = [dict(node.meta) for node in start]
        one = self._round(metas)
        while (wider := self._widened(metas, one.values)) is not None:
            metas = wider
            one = self._round(metas)
        empty = [g.node(value) for value in self._nothing_yet(one, start)]
        metas += [_growing(g, node) for node in empty]
        bound = None if rounds is None else g.node(_scalar(g, rounds))
        return self._emit([*start, *empty], metas, one, bound)

    def _round(self, metas: Sequence[Meta]) -> _Round:
        """Translate the body for values of these types."""
        inner = self.g.branch()
        names = ["number", "going", *(f"carried_{i}" for i in range(self.count))]
        inputs = [inner.input(n, meta) for n, meta in zip(names, metas, strict=True)]
        going, *results = branches.inline(self.g, self.body, inputs, inner)
        return _Round(inner, inputs, going, results[: self.count], results[self.count :])

    def _widened(self, metas: Sequence[Meta], values: Sequence[Value]) -> list[Meta] | None:
        """Types that hold in one more round, None when the given ones do already."""
        found, changed = [dict(meta) for meta in metas], False
        for meta, value in zip(found[_OWN:], values, strict=True):
            if branches.is_listlike(value):
                raise Unsupported("a sequence changes in a loop of unknown length")
            before, after = meta.get("val"), self.g.fake(value)
            if before is None or branches.holds(before, after, meta.get("open", ())):
                continue
            common = branches.merged(self.g, before, after)
            opened = () if common is None else branches.differing(before, common)
            meta.update(val=common, dtype=before.dtype, open={*meta.get("open", ()), *opened})
            changed = True
        return found if changed else None

    def _nothing_yet(self, one: _Round, start: Iterable[fx.Node]) -> list[Value]:
        """An empty tensor for each scan output; its sizes are known, or those of an input."""
        known = {
            str(size): (node, dim)
            for node in (*start, *one.builder.captured)
            if isinstance(fake := node.meta.get("val"), torch.Tensor)
            for dim, size in enumerate(fake.shape)
        }
        found: list[Value] = []
        for value, declared in zip(
            one.scanned, list(self.body.outputs)[1 + self.count :], strict=True
        ):
            fake = one.builder.fake(value)
            if fake is None or any(str(size) not in known for size in _open_sizes(fake)):
                found.append(branches.nothing_yet(declared))
                continue
            sizes = [s if isinstance(s, int) else self.g.size(*known[str(s)]) for s in fake.shape]
            found.append(self.g.call(aten.zeros.default, [0, *sizes], dtype=fake.dtype))
        return found

    def _emit(
        self, start: list[fx.Node], metas: list[Meta], one: _Round, bound: fx.Node | None
    ) -> tuple[Value, ...]:
        """The call, once body and types are settled."""
        results = _finished_round(one, metas)
        more, seen, answer = self._predicate(one, metas, bound)
        captured = branches.operands((one.builder, more))
        check = branches.finish(more, "more", seen, captured, [answer], predicate=True)
        step = branches.finish(one.builder, "body", one.inputs, captured, results)
        return self._call(start, metas, (check, step), captured)

    def _predicate(
        self, one: _Round, metas: Sequence[Meta], bound: fx.Node | None
    ) -> tuple[Builder, list[fx.Node], Value]:
        """Whether there is another round: number < bound, and the last one said so."""
        more = self.g.branch()
        pairs = zip(one.inputs, metas, strict=True)
        seen = [more.input(node.name, meta) for node, meta in pairs]
        if bound is None:
            return more, seen, seen[1]
        below = more.call(aten.lt.Tensor, seen[0], more.own(bound))
        return more, seen, more.call(aten.logical_and.default, below, seen[1])

    def _call(
        self,
        start: Sequence[fx.Node],
        metas: Sequence[Meta],
        refs: tuple[StageRef, StageRef],
        captured: Sequence[fx.Node],
    ) -> tuple[Value, ...]:
        fakes = tuple(meta.get("val") for meta in metas)
        target = torch.ops.higher_order.while_loop
        loop = self.g.emit_as(fakes, target, *refs, tuple(start), tuple(captured))
        found = []
        for i, meta in list(enumerate(metas))[_OWN:]:
            item = self.g.emit_as(meta.get("val"), operator.getitem, loop, i)
            item.meta.update({key: meta[key] for key in ("dtype", "rank") if key in meta})
            found.append(item)
        return tuple(found)


def _finished_round(one: _Round, metas: Sequence[Meta]) -> list[Value]:
    """What the body returns; what it collects becomes an input as well."""
    g = one.builder
    opened = metas[len(one.inputs) :]
    collected = [g.input(f"collected_{i}", meta) for i, meta in enumerate(opened)]
    grown = [
        g.call(aten.cat.default, [old, g.call(aten.unsqueeze.default, new, 0)])
        for old, new in zip(collected, one.scanned, strict=True)
    ]
    following = g.call(aten.add.Tensor, one.inputs[0], 1)
    one.inputs += collected
    return [following, _scalar(g, one.going), *one.values, *grown]


def _growing(g: Builder, empty: fx.Node) -> Meta:
    fake = empty.meta["val"]
    return {"val": g.unknown(fake.dtype, [None, *fake.shape[1:]])}


def _scalar(g: Builder, value: Value) -> Value:
    """A tensor of rank 0; ONNX also allows one element of rank 1."""
    return value if g.rank(value) == 0 else g.call(aten.reshape.default, value, [])


def _open_sizes(fake: torch.Tensor) -> list[Any]:
    return [size for size in fake.shape if not isinstance(size, int)]
