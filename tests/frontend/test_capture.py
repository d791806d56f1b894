"""From an exported program to a stage: names, paths, layers, inlined contexts, assertions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from effc.frontend.capture import export, to_stage
from effc.ir.opset import is_allowed
from effc.ir.program import InputSpec, ModelInfo, Program
from effc.ir.types import layer_of
from effc.ir.verify import verify
from effc.runtime.executable import Executable
from tests.programs import capture, decoder, example_ids, run


@pytest.mark.parametrize(
    ("path", "layer"),
    (
        ("", None),
        ("head", None),
        ("layers.0.mlp", 0),
        ("model.layers.12.self_attn.q_proj", 12),
        ("transformer.h.3", 3),
        ("layers.2.experts.5", 2),
        ("conv1d.weight", None),
    ),
)
def test_layer_is_the_first_number_of_a_path(path: str, layer: int | None) -> None:
    assert layer_of(path) == layer


def test_nodes_know_their_module_and_layer() -> None:
    program = capture(decoder(), *example_ids())
    calls = [node for _, node in program.nodes() if node.op == "call_function"]
    linears = [node for node in calls if str(node.target) == "aten.linear.default"]
    paths = [node.meta["path"] for node in linears]
    assert paths[:2] == ["layers.0.q", "layers.0.k"] and paths[-1] == "head"
    assert [node.meta["layer"] for node in linears] == [0] * 6 + [1] * 6 + [None]
    assert all(is_allowed(node.target) and "val" in node.meta for node in calls)


def test_weight_is_read_once_where_it_is_first_used() -> None:
    program = capture(decoder(), *example_ids())
    names = [str(node.target) for _, node in program.nodes() if node.op == "get_attr"]
    assert len(set(names)) == len(names)
    nodes = [node for _, node in program.nodes()]
    for node in nodes:
        if node.op == "get_attr":
            between = nodes[nodes.index(node) + 1 : nodes.index(min(node.users, key=nodes.index))]
            assert all(other.op == "get_attr" for other in between)


class Contexts(nn.Module):
    """Gradient mode changes, a constant, an update in place."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            y = self.inner(x)
        with torch.no_grad():
            y = y + torch.tensor([1.0, 2.0, 3.0, 4.0])
        y = y.clone()
        y.mul_(2.0)
        return y


def test_contexts_and_mutations_become_plain_calls() -> None:
    module, x = Contexts().eval(), torch.randn(3, 4)
    program = capture(module, x)
    verify(program, types=True)
    assert all(node.op != "call_module" for _, node in program.nodes())
    assert torch.equal(run(program, "forward", {"x": x[:2]})["output"], module(x[:2]))
    assert any(
        name.startswith(("constant.", "lifted")) or "tensor" in name for name in program.weights
    )


def test_equal_parameters_are_not_taken_for_tied() -> None:
    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.a + self.b

    program = capture(Twins(), torch.ones(2, 3))
    assert set(program.weights) == {"a", "b"} and not program.weights.ties


class Shifted(nn.Module):
    """A linear beside a constant that is not among the module's tensors."""

    def __init__(self, linear: nn.Linear, shift: float) -> None:
        super().__init__()
        self.linear = linear
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + torch.tensor([self.shift, 0.0])


def test_stages_of_one_module_share_its_weights_and_keep_their_own_constants() -> None:
    linear, x = nn.Linear(2, 2), torch.ones(1, 2)
    stages, beside = {}, None
    for name, shift in (("first", 3.0), ("second", 5.0)):
        exported = export(Shifted(linear, shift), {"x": x}, {"x": None}, "here")
        inputs = (InputSpec("x", torch.float32, (1, 2)),)
        beside = to_stage(exported, name, inputs, ("y",), beside=beside)
        stages[name] = beside.stage
    assert beside is not None
    assert {"linear.weight", "linear.bias"} <= set(beside.weights) and len(beside.weights) == 4
    executable = Executable(Program(stages, beside.weights, ModelInfo("module", "here")))
    results = [executable(name, {"x": x})["y"] for name in stages]
    assert torch.equal(results[0] - linear(x), torch.tensor([[3.0, 0.0]]))
    assert torch.equal(results[1] - linear(x), torch.tensor([[5.0, 0.0]]))
