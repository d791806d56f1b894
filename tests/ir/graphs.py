"""Stages written by hand, for tests of what works on graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode

import effc.ops  # noqa: F401
from effc.ir.journal import Journal
from effc.ir.program import InputSpec, ModelInfo, Program, Stage
from effc.ir.rewriter import GraphRewriter
from effc.ir.weights import Weight, Weights

aten = torch.ops.aten
Build = Callable[[Callable[..., fx.Node], dict[str, fx.Node]], Any]


def program_of(
    build: Build,
    inputs: Sequence[str] = ("x",),
    *,
    shape: tuple[int, ...] = (2, 4),
    dtype: torch.dtype = torch.float32,
    weights: dict[str, torch.Tensor] | None = None,
    state: Sequence[str] = (),
) -> Program:
    """A program of one stage "forward" whose calls `build` makes.

    Args:
        build: called with `call(target, *args)` and the inputs and weights by name; returns the
            result, a tuple of results, or a dict of named ones.
        inputs: names of the arguments, all of one shape and type.
        shape, dtype: theirs.
        weights: tensors by name.
        state: names of further inputs that are state.
    """
    mode = FakeTensorMode()
    graph, nodes = fx.Graph(), {}
    specs = []
    for name in (*inputs, *state):
        nodes[name] = graph.placeholder(name)
        with mode:
            nodes[name].meta["val"] = torch.empty(shape, dtype=dtype)
        role = "state" if name in state else "argument"
        specs.append(InputSpec(name, dtype, shape, role))
    table = Weights({name: Weight.of(tensor) for name, tensor in (weights or {}).items()})
    for name, tensor in (weights or {}).items():
        nodes[name] = node = graph.create_node("get_attr", name)
        with mode:
            node.meta["val"] = torch.empty(tensor.shape, dtype=tensor.dtype)
    graph.output(())
    stage = Stage("forward", graph, tuple(specs), ())
    program = Program({"forward": stage}, table, ModelInfo("test", "test"))
    rewriter = GraphRewriter(program, stage, Journal(), "test")
    with rewriter.before(stage.output_node):
        results = build(rewriter.call, nodes)
    if isinstance(results, fx.Node):
        results = {"output": results}
    elif isinstance(results, tuple):
        results = {str(i): node for i, node in enumerate(results)}
    rewriter.set_outputs(results)
    for _, node in program.nodes():
        node.meta.pop("made_by", None)
    return program


def rewriter_of(program: Program) -> tuple[GraphRewriter, Journal]:
    """A rewriter of the stage "forward", and the journal it writes."""
    journal = Journal()
    return GraphRewriter(program, program.stages["forward"], journal, "test"), journal


def node_called(program: Program, name: str) -> fx.Node:
    """The node of that name."""
    return next(node for _, node in program.nodes() if node.name == name)
