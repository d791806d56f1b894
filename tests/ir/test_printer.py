"""Printed programs are Python that computes the same."""

from __future__ import annotations

import math
import operator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import effc
from effc.diagnostics import InternalError
from effc.ir.printer import last_uses, print_program, print_stage
from effc.ir.program import Program
from tests.conftest import Golden
from tests.ir.graphs import aten, node_called, program_of
from tests.programs import capture, run_text, same_bits

SMALL = st.integers(-3, 5)
ARITHMETIC = (
    operator.add,
    operator.sub,
    operator.mul,
    operator.floordiv,
    operator.mod,
    operator.pow,
    operator.neg,
    torch.sym_max,
    math.floor,
)


def test_literals() -> None:
    def build(call, n):  # noqa: ANN001, ANN202
        a = call(aten.clamp.default, n["x"], float("-inf"), float("inf"))
        b = call(aten.to.dtype, call(aten.mul.Tensor, a, -0.0), torch.bfloat16)
        c = call(aten.full_like.default, b, float("nan"), device=torch.device("cpu:0"))
        return call(aten.slice.Tensor, c, 1, 0, 2**63 - 1), call(aten.sum.dim_IntList, c, [0], True)

    program = program_of(build)
    printed = print_stage(program.stages["forward"], comments=False)
    lines = [line.strip() for line in printed.splitlines()]
    assert lines == [
        "def forward(weights, x):",
        'clamp = torch.ops.aten.clamp.default(x, float("-inf"), float("inf"))',
        "mul = torch.ops.aten.mul.Tensor(clamp, -0.0)",
        "to = torch.ops.aten.to.dtype(mul, torch.bfloat16)",
        'full_like = torch.ops.aten.full_like.default(to, float("nan"), '
        'device=torch.device("cpu:0"))',
        "slice_1 = torch.ops.aten.slice.Tensor(full_like, 1, 0, 9223372036854775807)",
        "sum_1 = torch.ops.aten.sum.dim_IntList(full_like, [0], True)",
        "return (slice_1, sum_1,)",
    ]
    got = run_text(program, "forward", {"x": torch.ones(2, 4)})
    assert got["0"].isnan().all() and got["0"].dtype == torch.bfloat16


@settings(deadline=None, max_examples=150, derandomize=True)
@given(
    st.lists(st.tuples(st.sampled_from(ARITHMETIC), SMALL, SMALL, st.booleans()), max_size=6),
    st.integers(1, 4),
)
def test_arithmetic_on_sizes_means_what_it_meant(
    steps: list[tuple[Any, int, int, bool]], size: int
) -> None:
    """Each line is one operation, so precedence cannot regroup; signs of literals could."""
    program = program_of(lambda call, n: n["x"])
    stage = program.stages["forward"]
    node, value = None, size
    with stage.graph.inserting_before(stage.output_node):
        node = stage.graph.call_function(aten.sym_size.int, (stage.placeholder("x"), 0))
        for function, left, right, swap in steps:
            single = function in (operator.neg, math.floor)
            args = (node,) if single else (left, node) if swap else (node, right)
            known = (value,) if single else (left, value) if swap else (value, right)
            try:
                new = function(*known)
            except ZeroDivisionError:
                continue
            if not isinstance(new, int) or abs(new) > 10**6:
                continue
            node, value = stage.graph.call_function(function, args), new
    stage.output_node.args = ((node,),)
    assert run_text(program, "forward", {"x": torch.ones(size, 4)}) == {"output": value}


class Named(torch.nn.Module):
    """Inputs and a parameter with names that the printed text needs itself."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.ones(3))
        self.math = torch.nn.Parameter(2 * torch.ones(3))

    def forward(self, input, weights, torch, float) -> Any:  # noqa: A002, ANN001
        return {"input": input + weights * self.weights, "torch": torch * float * self.math}


def test_inputs_and_weights_may_be_called_like_anything(tmp_path: Path) -> None:
    module, values = Named().eval(), [torch.randn(2, 3) for _ in range(4)]
    inputs = dict(zip(("input", "weights", "torch", "float"), values, strict=True))
    expected = module(*values)
    program = capture(module, *values)
    inside = {f"{name}_": value for name, value in inputs.items()}
    assert same_bits(run_text(program, "forward", inside), expected)
    fast = effc.optimize(module, example_inputs=inputs)
    fast.save(tmp_path / "out")
    for model in (fast, effc.load(tmp_path / "out")):
        assert same_bits(vars(model(**inputs)), expected)
        assert same_bits(vars(model(*values)), expected)


def test_release_forgets_each_value_after_its_last_use() -> None:
    def build(call, n):  # noqa: ANN001, ANN202
        a = call(aten.sin.default, n["x"])
        b = call(aten.cos.default, a)
        call(aten.exp.default, b)  # nobody reads it
        return call(aten.add.Tensor, a, b)

    program = program_of(build)
    stage = program.stages["forward"]
    text = print_stage(stage, comments=False, release=True)
    assert text.splitlines()[1:] == [
        "    sin = torch.ops.aten.sin.default(x)",
        "    cos = torch.ops.aten.cos.default(sin)",
        "    exp = torch.ops.aten.exp.default(cos); del exp",
        "    add = torch.ops.aten.add.Tensor(sin, cos); del sin, cos",
        "    return (add,)",
    ]
    assert {node.name for node in last_uses(stage)} == {"exp", "add"}


@pytest.mark.parametrize(
    ("break_", "message"),
    (
        (lambda n: n.update_arg(0, object), "a type is no literal of a program"),
        (lambda n: setattr(n, "target", lambda x: x), "has no public name"),
        (lambda n: setattr(n, "name", "a b"), "'a b' cannot be a name in a program"),
        (lambda n: setattr(n, "name", "weights"), "'weights' cannot be a name in a program"),
        (lambda n: setattr(n, "name", "class"), "'class' cannot be a name in a program"),
        (lambda n: setattr(n, "name", "__import__"), "cannot be a name in a program"),
        (lambda n: setattr(n, "op", "call_module"), "has the unexpected kind 'call_module'"),
    ),
)
def test_what_cannot_be_printed_is_refused(break_: Any, message: str) -> None:
    program = program_of(lambda call, n: call(aten.sin.default, n["x"]))
    break_(node_called(program, "sin"))
    with pytest.raises(InternalError, match=message):
        print_program(program)


def test_several_stages_are_one_text(golden: Golden) -> None:
    first = program_of(lambda call, n: call(aten.sin.default, n["x"]))
    second = program_of(
        lambda call, n: call(aten.mul.Tensor, n["x"], n["a.b"]), weights={"a.b": torch.ones(4)}
    )
    second.stages["forward"].name = "second"
    node = node_called(second, "mul")
    node.meta.update(path="layers.0.act", layer=0, kernel="fast")
    both = Program(
        {"forward": first.stages["forward"], "second": second.stages["forward"]},
        second.weights,
        first.info,
    )
    golden.check(print_program(both))
