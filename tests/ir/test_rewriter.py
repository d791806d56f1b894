"""The one mutator: types, origins, journal, dead code."""

from __future__ import annotations

import pytest
import torch

from effc.diagnostics import InternalError, PassError
from effc.ir.program import InputSpec, Program, Stage
from effc.ir.rewriter import fake_mode_of, is_dead
from effc.ir.verify import verify
from effc.ir.weights import Weight
from tests.ir.graphs import aten, node_called, program_of, rewriter_of


def chain() -> Program:
    """y = exp(cos(sin(x)))"""
    return program_of(
        lambda call, n: call(
            aten.exp.default, call(aten.cos.default, call(aten.sin.default, n["x"]))
        )
    )


def names(program: Program) -> list[str]:
    return [node.name for _, node in program.nodes()]


def test_new_node_is_typed_placed_and_recorded() -> None:
    program = chain()
    rewriter, journal = rewriter_of(program)
    old = node_called(program, "cos")
    old.meta.update(path="layers.3.act", layer=3)
    with rewriter.before(old):
        new = rewriter.call(aten.mean.dim, old.args[0], [1], True)
    assert tuple(new.meta["val"].shape) == (2, 1)
    assert (new.meta["path"], new.meta["layer"], new.meta["made_by"]) == ("layers.3.act", 3, "test")
    assert names(program) == ["x", "sin", "mean", "cos", "exp", "output"]
    assert [(c.kind, c.node, c.detail) for c in journal.changes] == [
        ("insert", "mean", "aten.mean.dim")
    ]


def test_replace_erases_what_only_the_old_node_read() -> None:
    program = chain()
    rewriter, journal = rewriter_of(program)
    old = node_called(program, "cos")
    with rewriter.before(old):
        new = rewriter.call(aten.tanh.default, program.stages["forward"].placeholder("x"))
    rewriter.replace(old, new)
    assert names(program) == ["x", "tanh", "exp", "output"]
    assert node_called(program, "exp").args == (new,)
    assert [c.kind for c in journal.changes] == ["insert", "replace"]
    verify(program, types=True)


def test_inputs_and_shared_values_survive() -> None:
    def build(call, n):  # noqa: ANN001, ANN202
        shared = call(aten.sin.default, n["x"])
        return call(aten.cos.default, shared), call(aten.exp.default, shared)

    program = program_of(build)
    rewriter, _ = rewriter_of(program)
    x = program.stages["forward"].placeholder("x")
    rewriter.replace(node_called(program, "cos"), x)
    rewriter.replace(node_called(program, "exp"), x)
    assert names(program) == ["x", "output"]


def test_dead_chains_may_be_longer_than_the_stack_is_deep() -> None:
    def build(call, n):  # noqa: ANN001, ANN202
        node = n["x"]
        for _ in range(3000):
            node = call(aten.neg.default, node)
        return n["x"]

    program = program_of(build)
    rewriter, _ = rewriter_of(program)
    last = program.stages["forward"].output_node.prev
    assert is_dead(last)
    rewriter.erase(last)
    assert names(program) == ["x", "output"]


def test_refused_arguments_leave_no_trace() -> None:
    program = chain()
    rewriter, journal = rewriter_of(program)
    old = node_called(program, "cos")
    old.meta["path"] = "act"
    with rewriter.before(old), pytest.raises(PassError) as caught:
        rewriter.call(aten.view.default, old, [3, 3])
    assert str(caught.value).startswith(
        "forward.cos (from act): error[E0404]: aten.view.default refuses its arguments in pass test"
    )
    assert names(program) == ["x", "sin", "cos", "exp", "output"]
    assert not journal.changes


def test_weights_are_added_once_and_read_under_the_kept_name() -> None:
    program = chain()
    rewriter, journal = rewriter_of(program)
    rewriter.add_weight("kept", Weight.of(torch.ones(4), "here"))
    program.weights.ties["alias"] = "kept"
    with rewriter.before(node_called(program, "cos")):
        node = rewriter.weight("alias")
    assert (node.op, node.target, tuple(node.meta["val"].shape)) == ("get_attr", "kept", (4,))
    with pytest.raises(PassError, match="weight 'kept' exists already"):
        rewriter.add_weight("kept", Weight.of(torch.ones(4)))
    assert [c.kind for c in journal.changes] == ["weight", "insert"]


def test_signature_changes() -> None:
    program = chain()
    stage = program.stages["forward"]
    rewriter, journal = rewriter_of(program)
    value = stage.placeholder("x").meta["val"]
    added = rewriter.add_input(InputSpec("extra", torch.float32, (2, 4)), value)
    rewriter.add_output("more", added)
    assert [spec.name for spec in stage.inputs] == ["x", "extra"]
    assert stage.results() == {"output": node_called(program, "exp"), "more": added}
    rewriter.set_outputs({"only": added})
    assert stage.outputs == ("only",)
    assert [c.kind for c in journal.changes] == ["input", "output", "output"]
    with pytest.raises(KeyError, match="stage 'forward' has no input 'y'"):
        stage.placeholder("y")


def test_argument_target_and_mark() -> None:
    program = chain()
    rewriter, journal = rewriter_of(program)
    node = node_called(program, "cos")
    rewriter.set_argument(node, 0, program.stages["forward"].placeholder("x"))
    rewriter.retarget(node, aten.isnan.default)
    rewriter.retype(node)
    assert node.meta["val"].dtype == torch.bool
    rewriter.mark(node, "kernel", "fast")
    rewriter.mark(node, "kernel", "fast")
    assert [c.kind for c in journal.changes] == ["argument", "replace", "argument"]


def test_writes_are_never_dead() -> None:
    program = program_of(
        lambda call, n: (call(aten.sin.default, n["x"]), call(aten.cos.default, n["x"]))
    )
    rewriter, _ = rewriter_of(program)
    node = node_called(program, "cos")
    rewriter.set_outputs({"output": node_called(program, "sin")})
    assert is_dead(node)
    node.target = torch.ops.effc.cache_write_.default
    assert not is_dead(node)


def test_stage_without_types_cannot_be_rewritten() -> None:
    stage = Stage("bare", torch.fx.Graph(), (), ())
    with pytest.raises(InternalError, match="stage 'bare' carries no types"):
        fake_mode_of(stage)


def test_copy_is_independent() -> None:
    program = chain()
    copy = program.copy()
    assert names(copy) == names(program)
    rewriter, _ = rewriter_of(program)
    rewriter.replace(node_called(program, "cos"), program.stages["forward"].placeholder("x"))
    rewriter.add_weight("w", Weight.of(torch.ones(1)))
    program.notes.append("changed")
    assert names(copy) == ["x", "sin", "cos", "exp", "output"]
    assert not copy.weights and not copy.notes
    verify(copy, types=True)
