"""Every rule of the IR, broken once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch

from effc.diagnostics import VerifyError
from effc.ir.passbase import Pass
from effc.ir.program import InputSpec, Program
from effc.ir.verify import verify
from effc.ir.weights import Weight
from effc.passes.caching.insert_cache import InsertCache
from effc.passes.lowering.bufferize import Bufferize
from tests.ir.graphs import aten, node_called, program_of
from tests.programs import capture, decoder, example_ids, run_passes

Break = Callable[[Program], None]


def plain() -> Program:
    def build(call, n):  # noqa: ANN001, ANN202
        return call(aten.add.Tensor, call(aten.sin.default, n["x"]), n["w"])

    return program_of(build, weights={"w": torch.ones(4)})


def undeclared_input(program: Program) -> None:
    stage = program.stages["forward"]
    stage.inputs = (*stage.inputs, InputSpec("y", torch.float32, (1,)))


def scalar_output(program: Program) -> None:
    output = program.stages["forward"].output_node
    output.args = (output.args[0][0],)  # type: ignore[index]


def unnamed_output(program: Program) -> None:
    program.stages["forward"].outputs = ()


def early_use(program: Program) -> None:
    node_called(program, "sin").append(node_called(program, "w"))
    node_called(program, "sin").prepend(node_called(program, "add"))


def unknown_weight(program: Program) -> None:
    program.weights.remove("w")


def other_shape(program: Program) -> None:
    program.weights.set("w", Weight.of(torch.ones(5)))


def other_type(program: Program) -> None:
    program.weights.set("w", Weight.of(torch.ones(4).half()))


def foreign_operator(program: Program) -> None:
    node_called(program, "sin").target = torch.ops.aten.sin_.default


def python_function(program: Program) -> None:
    node_called(program, "sin").target = torch.sin


def module_call(program: Program) -> None:
    node_called(program, "sin").op = "call_module"


def stale_type(program: Program) -> None:
    node = node_called(program, "sin")
    node.meta["val"] = node.meta["val"].new_empty(2, 3)


def stale_dtype(program: Program) -> None:
    node = node_called(program, "sin")
    node.meta["val"] = node.meta["val"].half()


def no_type(program: Program) -> None:
    del node_called(program, "add").meta["val"]


def wrong_arguments(program: Program) -> None:
    node_called(program, "sin").target = torch.ops.aten.view.default


@pytest.mark.parametrize(
    ("breaks", "message"),
    (
        (undeclared_input, "forward: error[E0406]: placeholders ['x'] are not the declared inputs"),
        (
            scalar_output,
            "forward.output: error[E0406]: the last node must return one flat tuple",
        ),
        (unnamed_output, "forward.output: error[E0406]: returns 1 values for ()"),
        (early_use, "forward.add: error[E0406]: uses sin before it is computed"),
        (unknown_weight, "forward.w: error[E0406]: reads the unknown weight 'w'"),
        (other_shape, "forward.w: error[E0406]: weight 'w' is (5,), the graph says (4,)"),
        (
            other_type,
            "forward.w: error[E0406]: weight 'w' is torch.float16, the graph says torch.float32",
        ),
        (
            foreign_operator,
            "forward.sin: error[E0406]: operator aten.sin_.default is outside the dialect",
        ),
        (
            module_call,
            "forward.sin: error[E0406]: nodes of kind 'call_module' do not belong in a program",
        ),
        (
            stale_type,
            "forward.sin: error[E0406]: has the type [2, 3] torch.float32, "
            "its operator gives [2, 4] torch.float32",
        ),
        (
            stale_dtype,
            "forward.sin: error[E0406]: has the type [2, 4] torch.float16, "
            "its operator gives [2, 4] torch.float32",
        ),
        (
            no_type,
            "forward.add: error[E0406]: has the type NoneType, "
            "its operator gives [2, 4] torch.float32",
        ),
    ),
)
def test_broken_rule_is_named(breaks: Break, message: str) -> None:
    program = plain()
    verify(program, types=True)
    breaks(program)
    with pytest.raises(VerifyError) as caught:
        verify(program, types=True)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("breaks", "part"),
    (
        (python_function, r"^forward\.sin: error\[E0406\]: operator <.*sin.*> is outside the dial"),
        (wrong_arguments, r"^forward\.sin: error\[E0406\]: its operator refuses the arguments \("),
    ),
)
def test_broken_rule_with_a_foreign_text(breaks: Break, part: str) -> None:
    program = plain()
    breaks(program)
    with pytest.raises(VerifyError, match=part):
        verify(program, types=True)


@pytest.mark.parametrize("breaks", (stale_type, stale_dtype))
def test_types_are_compared_on_demand_only(breaks: Break) -> None:
    program = plain()
    breaks(program)
    verify(program)


# The discipline of the cache.


@cache
def cached(*passes: Pass) -> Program:
    program = capture(decoder(), *example_ids())
    run_passes(program, *passes)
    return program


def functional() -> Program:
    return cached(InsertCache()).copy()


def in_place() -> Program:
    return cached(InsertCache(), Bufferize()).copy()


def read_of_the_old_plane(program: Program) -> None:
    node_called(program, "attend").update_arg(1, [program.stages["decode"].placeholder("k0")])


def read_before_write(program: Program) -> None:
    node_called(program, "cache_write_").prepend(node_called(program, "attend"))


def double_write(program: Program) -> None:
    k0 = program.stages["decode"].placeholder("k0")
    node_called(program, "cache_write__1").update_arg(0, [k0])


def plane_twice_in_one_write(program: Program) -> None:
    k0 = program.stages["decode"].placeholder("k0")
    node_called(program, "cache_write_").update_arg(0, [k0, k0])


def write_to_an_argument(program: Program) -> None:
    stage = program.stages["decode"]
    stage.inputs = tuple(
        replace(spec, role="argument") if spec.name == "k0" else spec for spec in stage.inputs
    )


def write_to_a_value(program: Program) -> None:
    node_called(program, "cache_write").update_arg(0, [node_called(program, "embedding")])


def write_not_returned(program: Program) -> None:
    stage = program.stages["decode"]
    kept = {n: v for n, v in stage.results().items() if n != "v0"}
    stage.outputs, stage.output_node.args = tuple(kept), (tuple(kept.values()),)


def planes_swapped(program: Program) -> None:
    stage = program.stages["decode"]
    results = stage.results()
    results["k0"], results["v0"] = results["v0"], results["k0"]
    stage.output_node.args = (tuple(results.values()),)


@pytest.mark.parametrize(
    ("build", "breaks", "message"),
    (
        (
            functional,
            read_of_the_old_plane,
            "decode.attend: error[E0406]: reads k0 as it was before cache_write wrote to it\n"
            "help: read the written plane instead",
        ),
        (
            in_place,
            read_before_write,
            "decode.attend: error[E0406]: reads k0 as it was before cache_write_ wrote to it\n"
            "help: read the written plane instead",
        ),
        (
            in_place,
            double_write,
            "decode.cache_write_: error[E0406]: plane k0 is written more than once",
        ),
        (
            in_place,
            plane_twice_in_one_write,
            "decode.cache_write_: error[E0406]: plane k0 is written more than once",
        ),
        (
            functional,
            write_to_an_argument,
            "decode.cache_write: error[E0406]: writes to k0, which is no state of the stage",
        ),
        (
            functional,
            write_to_a_value,
            "decode.cache_write: error[E0406]: writes to embedding, which is no state of the stage",
        ),
        (
            functional,
            write_not_returned,
            "decode.cache_write_1: error[E0406]: the new value of v0 is not returned",
        ),
        (
            functional,
            planes_swapped,
            "decode.cache_write: error[E0406]: the new value of k0 is not returned",
        ),
    ),
)
def test_broken_cache_discipline(build: Callable[[], Program], breaks: Break, message: str) -> None:
    program = build()
    verify(program, types=True)
    breaks(program)
    with pytest.raises(VerifyError) as caught:
        verify(program)
    assert str(caught.value) == message
