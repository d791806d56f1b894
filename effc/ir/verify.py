"""The verifier: what makes a program legal.

Between any two passes: inputs and outputs as declared, operators from the allow-list, every weight
known and of the recorded shape, every value typed, and the discipline of the cache: a plane is
written once, read only after the write, and handed back when the program is functional.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator

import torch
from torch import fx

from effc.diagnostics import VerifyError
from effc.ir.opset import is_allowed
from effc.ir.program import Program, Stage
from effc.ir.rewriter import fake_mode_of, typed
from effc.ir.stage_calls import call_problem, cycle, is_higher_order

WRITE = "effc.cache_write.default"
WRITE_IN_PLACE = "effc.cache_write_.default"


def verify(program: Program, *, types: bool = False) -> None:
    """Check a program.

    Args:
        program: what to check.
        types: also recompute every type and compare it with the recorded one (slow).

    Raises:
        VerifyError: E0406, naming stage, node, reason and remedy.
    """
    if circle := cycle(program):
        _fail(program.stages[circle[0]], None, f"runs itself: {' -> '.join(circle)}")
    for stage in program.stages.values():
        _check_signature(stage)
        for node in stage.graph.nodes:
            _check_node(program, stage, node)
        _check_cache(stage)
        if types:
            _check_types(program, stage)


def _fail(stage: Stage, node: fx.Node | None, message: str, help: str | None = None) -> None:
    where = f"{stage.name}.{node.name}" if node is not None else stage.name
    raise VerifyError("E0406", message, where=where, help=help)


def _check_signature(stage: Stage) -> None:
    placeholders = [n.target for n in stage.graph.nodes if n.op == "placeholder"]
    if placeholders != [spec.name for spec in stage.inputs]:
        _fail(stage, None, f"placeholders {placeholders} are not the declared inputs")
    output = stage.output_node
    if output.op != "output" or not isinstance(output.args[0], tuple):
        _fail(stage, output, "the last node must return one flat tuple")
    if len(output.args[0]) != len(stage.outputs):  # type: ignore[arg-type]
        _fail(stage, output, f"returns {len(output.args[0])} values for {stage.outputs}")  # type: ignore[arg-type]
    seen: set[fx.Node] = set()
    for node in stage.graph.nodes:
        for used in node.all_input_nodes:
            if used not in seen:
                _fail(stage, node, f"uses {used.name} before it is computed")
        seen.add(node)


def _check_node(program: Program, stage: Stage, node: fx.Node) -> None:
    if node.op == "get_attr":
        if node.target not in program.weights:
            _fail(stage, node, f"reads the unknown weight {node.target!r}")
        expected, value = program.weights[str(node.target)], node.meta.get("val")
        if value is not None and tuple(value.shape) != expected.shape:
            _fail(
                stage,
                node,
                f"weight {node.target!r} is {expected.shape}, the graph says {tuple(value.shape)}",
            )
        if value is not None and value.dtype != expected.dtype:
            _fail(
                stage,
                node,
                f"weight {node.target!r} is {expected.dtype}, the graph says {value.dtype}",
            )
    elif node.op == "call_function":
        if not is_allowed(node.target):
            _fail(stage, node, f"operator {node.target} is outside the dialect")
        if problem := call_problem(program, node):
            _fail(stage, node, problem)
    elif node.op not in ("placeholder", "output"):
        _fail(stage, node, f"nodes of kind {node.op!r} do not belong in a program")


def _check_cache(stage: Stage) -> None:
    """Writes come before reads, once per plane; functional results leave by their input's name."""
    state = {spec.name for spec in stage.inputs if spec.role == "state"}
    for write in (n for n in stage.graph.nodes if str(n.target) in (WRITE, WRITE_IN_PLACE)):
        for plane in write.args[0]:  # type: ignore[union-attr]
            if plane.op != "placeholder" or plane.target not in state:
                _fail(stage, write, f"writes to {plane.name}, which is no state of the stage")
            writers = [u for u in plane.users if str(u.target) in (WRITE, WRITE_IN_PLACE)]
            if len(writers) > 1 or write.args[0].count(plane) > 1:  # type: ignore[union-attr]
                _fail(stage, write, f"plane {plane.name} is written more than once")
            _check_readers(stage, write, plane)
        if str(write.target) == WRITE:
            _check_returned(stage, write)


def _check_readers(stage: Stage, write: fx.Node, plane: fx.Node) -> None:
    position = {node: index for index, node in enumerate(stage.graph.nodes)}
    functional = str(write.target) == WRITE
    for reader in plane.users:
        if reader is write:
            continue
        if functional or position[reader] < position[write]:
            _fail(
                stage,
                reader,
                f"reads {plane.name} as it was before {write.name} wrote to it",
                "read the written plane instead",
            )


def _check_returned(stage: Stage, write: fx.Node) -> None:
    results = stage.results()
    for index, plane in enumerate(write.args[0]):  # type: ignore[arg-type]
        returned = results.get(str(plane.target))
        if returned is None or not _is_item(returned, write, index):
            _fail(stage, write, f"the new value of {plane.name} is not returned")


def _is_item(node: fx.Node, source: fx.Node, index: int) -> bool:
    return node.target is operator.getitem and node.args == (source, index)


def _check_types(program: Program, stage: Stage) -> None:
    mode = fake_mode_of(stage)
    for node in _calls(stage):
        try:
            with mode:
                value = node.target(*typed(node.args), **typed(node.kwargs))  # type: ignore[operator]
        except Exception as error:  # shape functions raise what they like
            _fail(stage, node, f"its operator refuses the arguments ({error})")
        expected, recorded = _type_text(value), _type_text(node.meta.get("val"))
        if expected != recorded:
            _fail(stage, node, f"has the type {recorded}, its operator gives {expected}")


def _type_text(value: object) -> str:
    """Sizes as text: comparing symbolic ones could add a guard."""
    if isinstance(value, torch.Tensor):
        return f"[{', '.join(map(str, value.shape))}] {value.dtype}"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_type_text, value))})"
    return "size" if isinstance(value, int | torch.SymInt) else type(value).__name__


def _calls(stage: Stage) -> Iterator[fx.Node]:
    """Calls whose type their operator tells; branches may differ in what they give."""
    calls = (node for node in stage.graph.nodes if node.op == "call_function")
    return (node for node in calls if not is_higher_order(node) and _has_typed_inputs(node))


def _has_typed_inputs(node: fx.Node) -> bool:
    return all(source.meta.get("val") is not None for source in node.all_input_nodes)
