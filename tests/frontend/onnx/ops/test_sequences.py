"""Sequences against Python's own lists, known while importing or only at run time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from effc.diagnostics import EffcError
from effc.importing import ImportedProgram
from effc.ir.printer import print_stage
from effc.ir.read_text import read_stages
from effc.ir.serialize import stage_from_json, stage_to_json
from effc.ir.verify import verify
from tests.frontend.onnx.ops.models import imported, same, targets

Tensors = list[torch.Tensor]


def tensors(*sizes: int) -> Tensors:
    """Vectors that tell one another apart."""
    return [torch.arange(n, dtype=torch.float32) + 10 * i for i, n in enumerate(sizes)]


INSERT = """
g (seq(float[n]) s, float[m] t, int64 p) => (seq(float[n]) y) { y = SequenceInsert(s, t, p) }
"""
ERASE = "g (seq(float[n]) s, int64 p) => (seq(float[n]) y) { y = SequenceErase(s, p) }"
AT = "g (seq(float[n]) s, int64 p) => (float[n] y) { y = SequenceAt(s, p) }"
LENGTH = "g (seq(float[n]) s) => (int64 y) { y = SequenceLength(s) }"

PROGRAMS: dict[str, ImportedProgram] = {}


def program(text: str) -> ImportedProgram:
    """Imported once."""
    if text not in PROGRAMS:
        PROGRAMS[text] = imported(text)
        verify(PROGRAMS[text], types=True)
    return PROGRAMS[text]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 4).flatmap(lambda n: st.tuples(st.just(n), st.integers(-n, n))))
def test_insertion_is_that_of_lists(case: tuple[int, int]) -> None:
    count, position = case
    given_list, new = tensors(*range(1, count + 1)), torch.full((2,), -1.0)
    (found,) = program(INSERT)(given_list, new, torch.tensor(position))
    wanted = list(given_list)
    wanted.insert(position, new)
    assert same(found, wanted)
    assert len(given_list) == count, "the caller's list is not touched"


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 4).flatmap(lambda n: st.tuples(st.just(n), st.integers(-n, n - 1))))
def test_elements_and_erasure_are_those_of_lists(case: tuple[int, int]) -> None:
    count, position = case
    given_list = tensors(*range(1, count + 1))
    (element,) = program(AT)(given_list, torch.tensor(position))
    assert same(element, given_list[position])
    (rest,) = program(ERASE)(given_list, torch.tensor(position))
    wanted = list(given_list)
    del wanted[position]
    assert same(rest, wanted)
    (length,) = program(LENGTH)(given_list)
    assert same(length, torch.tensor(count))


def test_a_sequence_that_is_built_in_the_graph_leaves_no_trace() -> None:
    made = imported("""
        g (float[2] a, float[2] b) => (float[2] y, int64 n) {
            first = SequenceConstruct(a, b)
            p = Constant<value_int = 0>()
            second = SequenceInsert(first, b, p)
            third = SequenceErase(second)
            y = SequenceAt(third, p)
            n = SequenceLength(third)
        }
    """)
    a, b = torch.ones(2), torch.zeros(2)
    y, n = made(a, b)
    assert same(y, b)
    assert same(n, torch.tensor(2))
    assert targets(made) == []


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("new_axis", [0, 1])
def test_joining_lists_of_run_time(axis: int, new_axis: int) -> None:
    made = imported(f"""
        g (seq(float[2, 3]) s) => (float y) {{
            y = ConcatFromSequence<axis = {axis}, new_axis = {new_axis}>(s)
        }}
    """)
    parts = [torch.arange(6.0).reshape(2, 3) + i for i in range(3)]
    join = torch.stack if new_axis else torch.cat
    assert same(made(parts)[0], join(parts, axis))


@pytest.mark.parametrize("size", ["4", "n"])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_splitting_into_single_elements(size: str, keepdims: int) -> None:
    made = imported(f"""
        g (float[2, {size}] x) => (seq(float) y) {{
            y = SplitToSequence<axis = 1, keepdims = {keepdims}>(x)
        }}
    """)
    x = torch.arange(8.0).reshape(2, 4)
    wanted = [x[:, i : i + 1] if keepdims else x[:, i] for i in range(4)]
    assert same(made(x)[0], wanted)


@pytest.mark.parametrize("shape", ["int64", "int64[2]"])
def test_splitting_by_sizes_of_run_time(shape: str) -> None:
    made = imported(f"g (float[5] x, {shape} n) => (seq(float) y) {{ y = SplitToSequence(x, n) }}")
    x = torch.arange(5.0)
    scalar = shape == "int64"
    sizes = torch.tensor(3) if scalar else torch.tensor([3, 2])
    assert same(made(x, sizes)[0], [x[:3], x[3:]])


def test_a_map_over_a_known_sequence_is_written_out() -> None:
    made = imported("""
        g (float[2] a, float[2] b, float[2] c) => (seq(float[2]) y) {
            s = SequenceConstruct(a, b)
            y = SequenceMap(s, c) <
                body = round (float[2] one, float[2] other) => (float[2] sum) {
                    sum = Add(one, other)
                }
            >
        }
    """)
    a, b, c = tensors(2, 2, 2)
    assert same(made(a, b, c)[0], [a + c, b + c])
    assert targets(made) == ["aten.add.Tensor"] * 2


def test_optionals_of_run_time() -> None:
    made = imported("""
        g (optional(float[2]) x) => (bool present) { present = OptionalHasElement(x) }
    """)
    assert same(made(torch.ones(2))[0], torch.tensor(True))
    assert same(made(None)[0], torch.tensor(False))
    inner = imported("""
        g (optional(float[2]) x) => (float[2] y) {
            v = OptionalGetElement(x)
            y = Neg(v)
        }
    """)
    assert same(inner(torch.ones(2))[0], -torch.ones(2))


@pytest.mark.parametrize("text", [INSERT, ERASE, AT, LENGTH])
def test_lists_of_run_time_are_written_and_read(text: str) -> None:
    stage = program(text).stages["forward"]
    assert stage.inputs[0].kind == "sequence"
    data = stage_to_json(stage)
    read = stage_from_json(data, "stages/forward.json")
    assert stage_to_json(read) == data
    assert read.inputs == stage.inputs
    (from_text,) = read_stages(print_stage(stage)).values()
    assert print_stage(from_text) == print_stage(stage)
    assert from_text.inputs == stage.inputs


@pytest.mark.parametrize(
    "body",
    [
        "y = SequenceAt(s, p)",
        "z = SequenceErase(s, p) n = Constant<value_int = 0>() y = SequenceAt(z, n)",
    ],
)
def test_positions_outside_a_known_sequence_are_named(body: str) -> None:
    text = f"""
        g (float[2] a) => (float[2] y) {{
            p = Constant<value_int = 3>()
            s = SequenceConstruct(a)
            {body}
        }}
    """
    with pytest.raises(EffcError, match="E0306") as error:
        imported(text)
    assert "element 3 of a sequence of 1" in error.value.message


@pytest.mark.parametrize(
    ("sizes", "message"),
    [("int64 n = {0}", "pieces of size 0"), ("int64[2] n = {2, 2}", "pieces of [2, 2] out of 5")],
)
def test_pieces_that_do_not_fit_are_named(sizes: str, message: str) -> None:
    with pytest.raises(EffcError, match="E0306") as error:
        imported(f"g (float[5] x) => (seq(float) y) <{sizes}> {{ y = SplitToSequence(x, n) }}")
    assert message in error.value.message
