"""Stages that run other stages: executed, printed, written and read back, and checked."""

from __future__ import annotations

import json
from collections.abc import Callable
from operator import getitem
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx

from effc.diagnostics import ArtifactError, VerifyError
from effc.ir.printer import print_program, print_stage
from effc.ir.program import InputSpec, ModelInfo, Program, Stage, StageRef
from effc.ir.read_text import read_stages
from effc.ir.serialize import stage_from_json, stage_to_json
from effc.ir.stage_calls import called, cycle
from effc.ir.verify import verify
from effc.ir.weights import Weight, Weights
from effc.runtime.executable import Executable
from tests.conftest import Golden

aten = torch.ops.aten
higher_order = torch.ops.higher_order

THEN, ELSE = StageRef("then_0"), StageRef("else_1")
MORE, BODY = StageRef("more_2", predicate=True), StageRef("body_3")


def stage_of(
    name: str,
    inputs: dict[str, torch.dtype],
    build: Callable[..., Any],
    shape: tuple[int, ...] = (),
) -> Stage:
    """A stage written by hand; `build(graph, *placeholders)` returns its results."""
    graph = fx.Graph()
    nodes = [graph.placeholder(n) for n in inputs]
    results = build(graph, *nodes)
    graph.output(results)
    specs = tuple(InputSpec(n, dtype, shape) for n, dtype in inputs.items())
    return Stage(name, graph, specs, tuple(f"result_{i}" for i in range(len(results))))


def program() -> Program:
    """x and n -> the Collatz-like loop: while i < n: x = x * w if even else x + i; i += 1."""

    def forward(g: fx.Graph, x: fx.Node, n: fx.Node) -> Any:
        zero = g.create_node("get_attr", "zero", name="zero")
        loop = g.call_function(higher_order.while_loop, (MORE, BODY, (zero, x), (n,)))
        return (g.call_function(getitem, (loop, 1)),)

    def more(g: fx.Graph, i: fx.Node, x: fx.Node, n: fx.Node) -> Any:
        return (g.call_function(aten.lt.Tensor, (i, n)),)

    def body(g: fx.Graph, i: fx.Node, x: fx.Node, n: fx.Node) -> Any:
        odd = g.call_function(aten.remainder.Scalar, (i, 2))
        even = g.call_function(aten.eq.Scalar, (odd, 0))
        chosen = g.call_function(higher_order.cond, (even, THEN, ELSE, (x, i)))
        following = g.call_function(aten.add.Tensor, (i, 1))
        return (following, g.call_function(getitem, (chosen, 0)))

    def then(g: fx.Graph, x: fx.Node, i: fx.Node) -> Any:
        w = g.create_node("get_attr", "layers.0.w", name="w")
        return (g.call_function(aten.mul.Tensor, (x, w)),)

    def other(g: fx.Graph, x: fx.Node, i: fx.Node) -> Any:
        return (g.call_function(aten.add.Tensor, (x, i)),)

    real, whole = torch.float32, torch.int64
    stages = [
        stage_of("forward", {"x": real, "n": whole}, forward),
        stage_of("then_0", {"x": real, "i": whole}, then),
        stage_of("else_1", {"x": real, "i": whole}, other),
        stage_of("more_2", {"i": whole, "x": real, "n": whole}, more),
        stage_of("body_3", {"i": whole, "x": real, "n": whole}, body),
    ]
    weights = Weights(
        {"zero": Weight.of(torch.tensor(0)), "layers.0.w": Weight.of(torch.tensor(3.0))}
    )
    return Program({s.name: s for s in stages}, weights, ModelInfo("test", "test"))


def expected(x: float, n: int) -> float:
    """The loop in plain Python; exact in float32 for small numbers."""
    for i in range(n):
        x = x * 3.0 if i % 2 == 0 else x + i
    return x


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(-9, 9), st.integers(0, 7))
def test_a_loop_of_branches_computes_what_python_computes(x: int, n: int) -> None:
    inputs = {"x": torch.tensor(float(x)), "n": torch.tensor(n)}
    results = Executable(program())("forward", inputs)
    assert results["result_0"].item() == expected(float(x), n)


def test_stages_are_printed_as_functions_bound_to_the_weights(golden: Golden) -> None:
    golden.check(print_program(program()))


def test_every_stage_comes_back_from_json_and_from_text() -> None:
    given_program = program()
    for name, stage in given_program.stages.items():
        data = json.loads(json.dumps(stage_to_json(stage)))
        read = stage_from_json(data, name)
        assert stage_to_json(read) == data
        assert print_stage(read) == print_stage(stage)
        (from_text,) = read_stages(print_stage(stage)).values()
        assert print_stage(from_text) == print_stage(stage)
        assert called(from_text) == called(stage)


def test_the_program_is_legal_and_names_what_it_runs() -> None:
    made = program()
    verify(made)
    assert called(made.stages["forward"]) == ["more_2", "body_3"]
    assert called(made.stages["body_3"]) == ["then_0", "else_1"]
    assert cycle(made) is None


def call_of(made: Program, stage: str, name: str) -> fx.Node:
    nodes = made.stages[stage].graph.nodes
    return next(node for node in nodes if node.op == "call_function" and name in str(node.target))


def no_such_stage(made: Program) -> None:
    del made.stages["then_0"]


def one_input_less(made: Program) -> None:
    call = call_of(made, "body_3", "cond")
    call.update_arg(3, (call.args[3][0],))  # type: ignore[index]


def branches_that_differ(made: Program) -> None:
    stage = made.stages["then_0"]
    result = stage.output_node.args[0][0]  # type: ignore[index]
    stage.output_node.args = ((result, result),)
    stage.outputs = ("result_0", "result_1")


def a_body_that_returns_too_little(made: Program) -> None:
    stage = made.stages["body_3"]
    stage.output_node.args = ((stage.output_node.args[0][0],),)  # type: ignore[index]
    stage.outputs = ("result_0",)


def a_body_as_predicate(made: Program) -> None:
    call_of(made, "forward", "while_loop").update_arg(0, StageRef("more_2"))


def a_stage_for_a_tensor(made: Program) -> None:
    call_of(made, "then_0", "mul").update_arg(1, ELSE)


def a_circle(made: Program) -> None:
    call_of(made, "body_3", "cond").update_arg(1, BODY)


def a_number_for_an_operand(made: Program) -> None:
    call = call_of(made, "body_3", "cond")
    call.update_arg(3, (call.args[3][0], 1))  # type: ignore[index]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_such_stage, "there is no stage 'then_0'"),
        (one_input_less, "stage 'then_0' has 2 inputs and is given 1"),
        (branches_that_differ, "the branches have 2 and 1 results"),
        (a_body_that_returns_too_little, "stage 'body_3' has 1 results, 2 are needed"),
        (a_body_as_predicate, "the arguments of while_loop are"),
        (a_stage_for_a_tensor, "it runs no stages, and is given the stage 'else_1'"),
        (a_circle, "runs itself: body_3 -> body_3"),
        (a_number_for_an_operand, "the arguments of cond are"),
    ],
)
def test_what_does_not_fit_is_refused(damage: Callable[[Program], None], message: str) -> None:
    made = program()
    damage(made)
    with pytest.raises(VerifyError, match="E0406") as error:
        verify(made)
    assert message in error.value.message


def loop_entry(data: dict[str, Any]) -> dict[str, Any]:
    return next(node for node in data["nodes"] if "while_loop" in node["target"])


@pytest.mark.parametrize(
    "change",
    [
        lambda node: node["args"].pop(),
        lambda node: node["args"].append({"node": "x"}),
        lambda node: node.update(kwargs={"mutated_arg_indices": {"text": "0"}}),
        lambda node: node["args"].__setitem__(0, {"stage": "more_2"}),
        lambda node: node["args"].__setitem__(1, {"predicate": "body_3"}),
        lambda node: node["args"].__setitem__(1, {"stage": "__class__"}),
        lambda node: node["args"].__setitem__(1, {"stage": "a.b"}),
        lambda node: node["args"].__setitem__(1, {"stage": 3}),
        lambda node: node["args"].__setitem__(2, [{"node": "x"}]),
        lambda node: node["args"].__setitem__(2, {"tuple": [{"node": "zero"}, 1]}),
        lambda node: node.update(target="higher_order.while_loops"),
        lambda node: node.update(target="higher_order.wrap"),
        lambda node: node.update(target="aten.add.Tensor"),
        lambda node: node.update(target="operator.add"),
    ],
)
def test_tampered_references_are_refused(change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(json.dumps(stage_to_json(program().stages["forward"])))
    change(loop_entry(data))
    with pytest.raises(ArtifactError, match="E060[34]"):
        stage_from_json(data, "stages/forward.json")
