"""If, Loop and Scan against the same control flow in Python."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import effc
from effc.diagnostics import EffcError
from effc.importing import ImportedProgram
from effc.ir.printer import print_program
from effc.ir.read_text import read_stages
from effc.ir.verify import verify
from tests.conftest import Golden
from tests.frontend.onnx.ops.models import imported, parsed, same, targets

IF = """
g (bool c, float[n] x, float[n] y) => (float[m] z)
<float[2] w = {5.0, 7.0}> {
    s = Sum(x, y)
    z = If(c) <
        then_branch = a () => (float[n] u) { u = Mul(x, s) },
        else_branch = b () => (float[k] v) { v = Concat<axis = 0>(y, w) }
    >
}
"""

WHILE = """
g (int64 m, bool c, float[n] x, float limit) => (float[n] y, float[r, n] all)
<float one = {1.0}> {
    y, all = Loop(m, c, x) <
        body = b (int64 i, bool going, float[n] v) => (bool more, float[n] next, float[n] kept) {
            f = Cast<to = 1>(i)
            t = Mul(v, f)
            next = Add(t, one)
            kept = Neg(v)
            top = ReduceMax<keepdims = 0>(next)
            more = Less(top, limit)
        }
    >
}
"""


def test_a_known_condition_leaves_one_branch() -> None:
    text = IF.replace("(bool c, ", "(").replace("<float[2] w", "<bool c = {1}, float[2] w")
    made = imported(text)
    x, y = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    assert same(made(x, y)[0], x * (x + y))
    assert targets(made) == ["aten.add.Tensor", "aten.mul.Tensor"]
    assert list(made.stages) == ["forward"]


@pytest.mark.parametrize("condition", [True, False])
def test_a_condition_of_run_time_chooses_a_stage(condition: bool) -> None:
    made = imported(IF)
    verify(made)
    x, y = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    wanted = x * (x + y) if condition else torch.cat([y, torch.tensor([5.0, 7.0])])
    assert same(made(torch.tensor(condition), x, y)[0], wanted)
    assert list(made.stages) == ["forward", "then_0", "else_1"]


def test_branches_print_with_their_inputs(golden: Golden) -> None:
    text = print_program(imported(IF))
    golden.check(text)
    assert list(read_stages(text)) == ["forward", "then_0", "else_1"]


def test_branches_within_branches_reach_values_of_every_graph_around_them() -> None:
    made = imported("""
        g (bool c, bool d, float[2] x) => (float[2] y) {
            h = Neg(x)
            y = If(c) <
                then_branch = a () => (float[2] u) {
                    k = Mul(h, x)
                    u = If(d) <
                        then_branch = p () => (float[2] r) { r = Add(k, h) },
                        else_branch = q () => (float[2] s) { s = Sub(k, x) }
                    >
                },
                else_branch = b () => (float[2] v) { v = Identity(x) }
            >
        }
    """)
    verify(made)
    x = torch.tensor([2.0, -3.0])
    for outer in (True, False):
        for inner in (True, False):
            chosen = -x * x + (-x if inner else -x)
            wanted = chosen if outer else x
            assert same(made(torch.tensor(outer), torch.tensor(inner), x)[0], wanted)


@cache
def while_program() -> ImportedProgram:
    """`WHILE`, imported once."""
    return imported(WHILE)


def looped(m: int, c: bool, x: torch.Tensor, limit: float) -> tuple[torch.Tensor, torch.Tensor]:
    """`WHILE` in Python."""
    kept, i = [], 0
    while i < m and c:
        kept.append(-x)
        x = x * i + 1
        c = bool(x.max() < limit)
        i += 1
    return x, torch.stack(kept) if kept else torch.empty(0, *x.shape)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 6), st.booleans(), st.sampled_from([0.5, 2.5, 40.0]))
def test_a_loop_of_run_time_goes_round_as_often_as_in_python(m: int, c: bool, limit: float) -> None:
    x = torch.tensor([1.0, -2.0, 3.0])
    found = while_program()(torch.tensor(m), torch.tensor(c), x, torch.tensor(limit))
    assert same(list(found), list(looped(m, c, x, limit)))


def test_a_loop_of_run_time_is_legal() -> None:
    made = imported(WHILE)
    verify(made)
    assert [str(t) for t in targets(made) if "while" in t] == ["while_loop"]


def test_a_known_number_of_rounds_is_written_out() -> None:
    made = imported("""
        g (float[2] x) => (float[2] y, float[3, 2] all) <int64 m = {3}> {
            y, all = Loop(m, , x) <
                body = b (int64 i, bool c, float[2] v) => (bool c2, float[2] w, float[2] k) {
                    c2 = Identity(c)
                    f = Cast<to = 1>(i)
                    w = Add(v, f)
                    k = Mul(v, w)
                }
            >
        }
    """)
    x = torch.tensor([1.0, -2.0])
    values = [x, x, x + 1, x + 3]
    wanted = torch.stack([values[i] * values[i + 1] for i in range(3)])
    found = made(x)
    assert same(found[0], values[3])
    assert same(found[1], wanted)
    assert "while_loop" not in targets(made)


def test_a_loop_stops_where_its_condition_is_known_to() -> None:
    made = imported("""
        g (float[2] x) => (float[2] y) <int64 m = {100}, int64 last = {2}, float one = {1.0}> {
            y = Loop(m, , x) <
                body = b (int64 i, bool c, float[2] v) => (bool more, float[2] w) {
                    w = Add(v, one)
                    more = Less(i, last)
                }
            >
        }
    """)
    assert same(made(torch.zeros(2))[0], torch.full((2,), 3.0))
    assert targets(made) == ["aten.add.Tensor"] * 3


def test_what_a_loop_carries_may_grow() -> None:
    made = imported("""
        g (int64 m, float[n] x) => (float[k] y) <bool t = {1}> {
            y = Loop(m, , x) <
                body = b (int64 i, bool c, float[p] v) => (bool more, float[q] w) {
                    w = Concat<axis = 0>(v, x)
                    more = Identity(c)
                }
            >
        }
    """)
    x = torch.tensor([1.0, 2.0])
    for m in range(4):
        assert same(made(torch.tensor(m), x)[0], x.repeat(m + 1))


def test_a_sequence_that_grows_in_a_loop_of_run_time_is_refused_by_name() -> None:
    with pytest.raises(EffcError, match="E0307") as error:
        imported("""
            g (int64 m, float[2] x) => (seq(float[2]) y) {
                s = SequenceEmpty()
                y = Loop(m, , s) <
                    body = b (int64 i, bool c, seq(float[2]) v) => (bool d, seq(float[2]) w) {
                        w = SequenceInsert(v, x)
                        d = Identity(c)
                    }
                >
            }
        """)
    assert "a sequence changes in a loop" in error.value.message


@pytest.mark.parametrize("backwards", [0, 1])
@pytest.mark.parametrize("out_axis", [0, 1])
def test_a_scan_is_a_running_sum(backwards: int, out_axis: int) -> None:
    made = imported(f"""
        g (float[2] s, float[2, 3] x) => (float[2] last, float all) {{
            last, all = Scan<
                num_scan_inputs = 1, scan_input_axes = [1],
                scan_input_directions = [{backwards}], scan_output_directions = [{backwards}],
                scan_output_axes = [{out_axis}],
                body = b (float[2] old, float[2] one) => (float[2] new, float[2] out) {{
                    new = Add(old, one)
                    out = Identity(new)
                }}
            >(s, x)
        }}
    """)
    s, x = torch.tensor([10.0, 20.0]), torch.arange(6.0).reshape(2, 3)
    columns = [x[:, i] for i in range(3)][:: -1 if backwards else 1]
    sums = list(torch.stack([s, *columns]).cumsum(0)[1:])
    last, every = made(s, x)
    assert same(last, sums[-1])
    assert same(every, torch.stack(sums[:: -1 if backwards else 1], out_axis))


def test_a_scan_over_an_open_size_is_refused_by_name() -> None:
    with pytest.raises(EffcError, match="E0307") as error:
        imported("""
            g (float s, float[n] x) => (float y) {
                y = Scan<num_scan_inputs = 1, body = b (float a, float c) => (float d) {
                    d = Add(a, c)
                }>(s, x)
            }
        """)
    assert "the number of rounds of Scan is only known at run time" in error.value.message


@pytest.mark.parametrize("condition", [True, False])
def test_a_saved_artifact_still_chooses(condition: bool, tmp_path: Path) -> None:
    onnx.save(parsed(IF), tmp_path / "model.onnx")
    effc.optimize(tmp_path / "model.onnx").save(tmp_path / "out")
    x, y = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    inputs = (torch.tensor(condition), x, y)
    (wanted,) = imported(IF)(*inputs)
    assert same(effc.load(tmp_path / "out")(*inputs).z, wanted)
