"""Control flow: If, Loop, Scan.

What is known while translating is decided at once: one branch stays, loops are unrolled. The rest
becomes torch's higher-order operators over stages of their own.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import onnx_ir
import torch
from torch import fx

from effc.frontend.onnx import branches
from effc.frontend.onnx.branches import content_of, inline, is_listlike, nothing_yet
from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.table import Translation
from effc.frontend.onnx.values import Content, Unsupported, Value
from effc.frontend.onnx.while_loops import WhileLoop

aten = torch.ops.aten
higher_order = torch.ops.higher_order

UNROLLED = 1024
"""Rounds of a loop that are written out; more become a loop at run time, or are refused."""


def choose(
    g: Builder, condition: Value, *, then_branch: onnx_ir.Graph, else_branch: onnx_ir.Graph
) -> tuple[Value, ...]:
    """If."""
    known = g.constant(condition)
    if known is not None:
        return tuple(inline(g, then_branch if bool(known) else else_branch, []))
    first, second = g.branch(), g.branch()
    then = inline(g, then_branch, [], first)
    other = inline(g, else_branch, [], second)
    captured = branches.operands((first, second))
    refs = (
        branches.finish(first, "then", (), captured, then),
        branches.finish(second, "else", (), captured, other),
    )
    types = tuple(_either(g, a, b) for a, b in _results(g, refs))
    fakes = tuple(None if isinstance(t, Content | torch.dtype) else t for t in types)
    chosen = g.emit_as(fakes, higher_order.cond, g.node(condition), *refs, tuple(captured))
    results = []
    for i, found in enumerate(types):
        item = g.emit_as(fakes[i], operator.getitem, chosen, i)
        if isinstance(found, Content):
            item.meta["content"] = found
        elif isinstance(found, torch.dtype):
            item.meta["dtype"] = found
        results.append(item)
    return tuple(results)


def _results(g: Builder, refs: Sequence[Any]) -> list[tuple[Any, Any]]:
    stages = [g.stages[ref.name] for ref in refs]
    return list(zip(*(stage.output_node.args[0] for stage in stages), strict=True))  # type: ignore[arg-type]


def _either(g: Builder, a: Any, b: Any) -> Any:
    """Fake value, element type or content of what is one of two results."""
    if isinstance(a, list) or isinstance(b, list) or a is None or b is None:
        return _either_content(a, b)
    if content_of(a) or content_of(b):
        return content_of(a) or content_of(b)
    fake = branches.merged(g, a.meta.get("val"), b.meta.get("val"))
    if fake is not None:
        return fake
    dtypes = [_dtype_of(node) for node in (a, b)]
    return dtypes[0] if dtypes[0] == dtypes[1] else None


def _either_content(a: Any, b: Any) -> Content | None:
    """Sequences and absent values; the type of their elements is that of the first there is."""
    items = [node for value in (a, b) for node in (value if isinstance(value, list) else [value])]
    found = [dtype for node in items if node is not None and (dtype := _dtype_of(node))]
    return Content(found[0] if found else torch.float32, None, isinstance(a or b, list))


def _dtype_of(node: fx.Node) -> torch.dtype | None:
    fake = node.meta.get("val")
    return fake.dtype if isinstance(fake, torch.Tensor) else node.meta.get("dtype")


def loop(
    g: Builder,
    rounds: Value = None,
    condition: Value = None,
    *carried: Value,
    body: onnx_ir.Graph,
) -> tuple[Value, ...]:
    """Loop: carried values, then one stacked result per scan output."""
    limit = None if rounds is None else g.constant(rounds)
    start = torch.tensor(True) if condition is None else g.constant(condition)
    known = start is not None and (rounds is None or limit is not None)
    if known and not bool(start):
        limit = torch.tensor(0)
    count = int(limit) if limit is not None else None
    if known and _stops_by_itself(g, body, carried, count):
        return _unrolled(g, body, carried, count)
    if carried and any(is_listlike(value) for value in carried):
        raise Unsupported("a sequence changes in a loop whose rounds are only known at run time")
    return WhileLoop(g, body, len(carried)).translate(rounds, condition, carried)


def _stops_by_itself(
    g: Builder, body: onnx_ir.Graph, carried: Sequence[Value], count: int | None
) -> bool:
    """Whether every round's condition is known: tried out on a graph that is thrown away."""
    if count is not None and count > UNROLLED:
        return False
    if count == 0:
        return True
    stages = dict(g.stages)
    probe = inline(g, body, [torch.tensor(0), torch.tensor(True), *carried], g.branch())
    g.stages.clear()
    g.stages.update(stages)
    return g.constant(probe[0]) is not None


def _unrolled(
    g: Builder, body: onnx_ir.Graph, carried: Sequence[Value], count: int | None
) -> tuple[Value, ...]:
    values, scans = list(carried), []
    number = 0
    going = True
    while going and number != count:
        if number >= UNROLLED:
            raise Unsupported(f"the loop does not end within {UNROLLED} rounds")
        results = inline(g, body, [torch.tensor(number), torch.tensor(True), *values])
        more = g.constant(results[0])
        if more is None:
            raise Unsupported("whether the loop goes on is not known in every round")
        values = results[1 : len(carried) + 1]
        scans.append(results[len(carried) + 1 :])
        going, number = bool(more), number + 1
    outputs = list(body.outputs)[len(carried) + 1 :]
    stacked = [_stack(g, [one[k] for one in scans], out, 0) for k, out in enumerate(outputs)]
    return (*values, *stacked)


def _stack(g: Builder, items: list[Value], declared: onnx_ir.Value, axis: int) -> Value:
    """The results of all rounds as one tensor."""
    if items:
        return g.call(aten.stack.default, items, axis)
    return nothing_yet(declared)


def scan(
    g: Builder,
    *inputs: Value,
    body: onnx_ir.Graph,
    num_scan_inputs: int,
    scan_input_axes: Sequence[int] | None = None,
    scan_input_directions: Sequence[int] | None = None,
    scan_output_axes: Sequence[int] | None = None,
    scan_output_directions: Sequence[int] | None = None,
    directions: Sequence[int] | None = None,
) -> tuple[Value, ...]:
    """Scan: one round per element of the scanned inputs.

    Before opset 9 everything has a batch dimension in front, and lengths may come first.
    """
    if g.opset < 9:
        return _batched_scan(g, *inputs, body=body, count=num_scan_inputs, directions=directions)
    states, scanned = list(inputs[:-num_scan_inputs]), list(inputs[-num_scan_inputs:])
    axes = scan_input_axes or [0] * num_scan_inputs
    backwards = scan_input_directions or [0] * num_scan_inputs
    length = g.size(scanned[0], axes[0])
    if not isinstance(length, int):
        raise Unsupported("the number of rounds of Scan is only known at run time")
    outputs: list[list[Value]] = []
    for i in range(length):
        places = [length - 1 - i if back else i for back in backwards]
        slices = [
            g.call(aten.select.int, x, axis, place)
            for x, axis, place in zip(scanned, axes, places, strict=True)
        ]
        results = inline(g, body, [*states, *slices])
        states, produced = results[: len(states)], results[len(states) :]
        outputs.append(produced)
    declared = list(body.outputs)[len(states) :]
    out_axes = scan_output_axes or [0] * len(declared)
    reverse = scan_output_directions or [0] * len(declared)
    stacked = []
    for k, (axis, back) in enumerate(zip(out_axes, reverse, strict=True)):
        items = [one[k] for one in outputs]
        stacked.append(_stack(g, items[::-1] if back else items, declared[k], axis))
    return (*states, *stacked)


def _batched_scan(
    g: Builder,
    lengths: Value,
    *inputs: Value,
    body: onnx_ir.Graph,
    count: int,
    directions: Sequence[int] | None,
) -> tuple[Value, ...]:
    """Scan of opset 8: batch by batch."""
    if lengths is not None:
        raise Unsupported("Scan of opset 8 with lengths of its own")
    batch = g.size(inputs[0], 0)
    if not isinstance(batch, int):
        raise Unsupported("the batch size of Scan is only known at run time")
    rounds = []
    for b in range(batch):
        one = [g.call(aten.select.int, x, 0, b) for x in inputs]
        rounds.append(_scan_of_one(g, one, body, count, directions))
    return tuple(g.call(aten.stack.default, list(results)) for results in zip(*rounds, strict=True))


def _scan_of_one(
    g: Builder,
    inputs: list[Any],
    body: onnx_ir.Graph,
    count: int,
    directions: Sequence[int] | None,
) -> tuple[Value, ...]:
    before, g.opset = g.opset, 9
    try:
        return scan(g, *inputs, body=body, num_scan_inputs=count, scan_input_directions=directions)
    finally:
        g.opset = before


TABLE: dict[str, Translation] = {
    "If": choose,
    "Loop": loop,
    "Scan": scan,
}
