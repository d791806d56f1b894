"""Printed programs are read back as what they were, and nothing else is read at all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx

from effc.compiler import compile_model
from effc.diagnostics import EffcError, PassError, Span
from effc.ir.printer import print_program, print_stage
from effc.ir.program import InputSpec, Stage
from effc.ir.read_text import read_stages
from effc.ir.serialize import stage_to_json
from tests.passes.case import PassCase
from tests.passes.cases import CASES
from tests.programs import decoder, example_ids, run_passes

aten = torch.ops.aten


def facts(stage: Stage) -> dict[str, Any]:
    """All of a stage but which pass made a node: the text does not say that."""
    data: dict[str, Any] = stage_to_json(stage)
    for node in data["nodes"]:
        node.pop("made_by", None)
    return data


def check(stages: dict[str, Stage]) -> None:
    for name, stage in stages.items():
        text = print_stage(stage)
        (read,) = read_stages(text).values()
        assert read.name == name
        assert facts(read) == facts(stage)
        assert print_stage(read) == text


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_programs_before_and_after_every_pass_come_back(case: PassCase) -> None:
    program = case.program()
    check(program.stages)
    run_passes(program, case.make())
    check(program.stages)


def test_a_compiled_model_comes_back() -> None:
    policy = {"quantize": [{"where": "linear and layer >= 0", "method": "rtn"}]}
    program = compile_model(decoder(window=4), policy, example_inputs=example_ids()).program
    check(program.stages)
    assert list(read_stages(print_program(program))) == ["decode"]


LITERALS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats()
    | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
    | st.sampled_from([torch.float16, torch.int8, torch.strided, torch.channels_last])
    | st.just(torch.device("cpu")),
    lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, 5), LITERALS), max_size=6))
def test_random_graphs_come_back(calls: list[tuple[int, Any]]) -> None:
    graph = fx.Graph()
    values = [graph.placeholder("x"), graph.create_node("get_attr", "layers.0.w", name="w")]
    for seen, literal in calls:
        args = (values[seen % len(values)], literal)
        values.append(graph.call_function(aten.add.Tensor, args))
    graph.output((values[-1], None))
    spec = InputSpec("x", torch.int64, ("B", "T * (B + 1)", "max(B, T)", 3), optional=True)
    check({"forward": Stage("forward", graph, (spec,), ("a", "b.0"))})


GOOD = """def forward(weights, x):
    # argument x: [B, 4] float32
    # results y
    sin = torch.ops.aten.sin.default(x)  # [B, 4] float32  layers.2.act
    return (sin,)
"""


def test_what_the_comments_say_is_read() -> None:
    stage = read_stages(GOOD)["forward"]
    node = next(n for n in stage.graph.nodes if n.name == "sin")
    assert node.meta == {
        "shape": ("B", 4), "dtype": "float32", "path": "layers.2.act", "layer": 2,
    }  # fmt: skip
    assert stage.inputs == (InputSpec("x", torch.float32, ("B", 4)),)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("return (sin,)", "return (sin,", 5, "the text is no Python"),
        ("def forward", "import os\ndef forward", 1, "a program consists of functions"),
        ("weights, x", "x", 1, "the first parameter is 'weights'"),
        ("# argument x: [B, 4] float32", "#", 1, "one comment describes each input, in order"),
        ("# argument", "# wish", 2, "an input is described as"),
        ("# results y", "#", 1, "one comment names the results"),
        ("sin = torch", "torch", 4, "a statement assigns one value to one name"),
        ("torch.ops.aten.sin.default(x)", "x", 4, "'x' is no operation of a program"),
        ("sin.default(x)", "sin.default(x.data)", 4, "'x.data' is no argument of a program"),
        ("sin.default(x)", "sin.default(open('f'))", 4, "is no argument of a program"),
        ("return (sin,)", "return sin", 5, "a statement assigns one value to one name"),
    ],
)
def test_other_python_is_refused_at_its_line(old: str, new: str, line: int, message: str) -> None:
    assert old in GOOD
    with pytest.raises(PassError) as caught:
        read_stages(GOOD.replace(old, new), "p.py")
    where = caught.value.where
    assert caught.value.code == "E0412" and message in caught.value.message
    assert isinstance(where, Span) and (where.file, where.line) == ("p.py", line)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("aten.sin.default", "aten.sin_.default", "E0604"),
        ("torch.ops.aten.sin.default(x)", "os.system('true')", "E0604"),
        ("(x)  #", "(y)  #", "E0603"),
        ("return (sin,)", "return (sin, sin)", "E0603"),
        ("sin.default(x)", "sin.default(x, x)", "E0603"),
        ("[B, 4] float32  layers", "[__import__, 4] float99  layers", "E0603"),
    ],
)
def test_what_an_artifact_may_not_hold_is_refused(old: str, new: str, code: str) -> None:
    with pytest.raises(EffcError, match=code):
        read_stages(GOOD.replace(old, new))


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.integers(0, len(GOOD)), st.integers(0, 12), st.text(max_size=12))
def test_edited_text_never_crashes_the_reader(at: int, cut: int, new: str) -> None:
    try:
        read_stages(GOOD[:at] + new + GOOD[at + cut :])
    except EffcError as error:
        assert error.code in ("E0412", "E0603", "E0604")
