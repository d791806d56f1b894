"""Weights in few bits: what the rewritten program computes, and what it stores."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from effc.ir.program import Program
from effc.ir.sites import find_sites
from effc.passes.quantization.quantize_weights import KINDS, QuantizeWeights
from effc.passes.quantization.rtn import Rtn
from tests.passes.cases import Quantizable
from tests.programs import canonical, capture, decoder, example_ids, run, run_passes

IDS = torch.tensor([[1, 2, 0], [4, 5, 6]])


def quantizable() -> tuple[Quantizable, Program]:
    torch.manual_seed(2)
    module = Quantizable().eval()
    return module, capture(module, IDS)


def choose(
    program: Program, method: Rtn, kinds: tuple[str, ...] = KINDS
) -> dict[tuple[str, str], Any]:
    found = [site for site in find_sites(program) if site.kind in kinds]
    return {(site.stage, site.node): method for site in found}


def dequantized(method: Rtn, weight: torch.Tensor) -> torch.Tensor:
    """What the codes stand for, along the last dimension."""
    return method.layout().unpack(method.quantize(weight), weight.shape[-1])


@pytest.mark.parametrize(
    "method",
    (
        Rtn(4, 16),
        Rtn(8, 32),
        Rtn(4, "row", symmetric=False),
        Rtn(2, 16),
        Rtn(3, 32, symmetric=False),
    ),
    ids=lambda m: f"{m.bits}-{m.group}",
)
def test_results_are_those_of_the_dequantized_weights(method: Rtn) -> None:
    module, program = quantizable()
    run_passes(program, QuantizeWeights(choose(program, method), activations="source"))
    got = run(program, "forward", {"ids": IDS})
    with torch.no_grad():
        for linear in (module.kept, module.chosen):
            linear.weight.copy_(dequantized(method, linear.weight))
        module.table.weight.copy_(dequantized(method, module.table.weight))
        turned = dequantized(method, module.experts.transpose(1, 2).contiguous())
        module.experts.copy_(turned.transpose(1, 2))
        expected = module(IDS)
    for left, right in zip(got.values(), expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bits", (2, 3, 4, 8))
def test_weights_move_by_half_a_step_at_most(bits: int) -> None:
    weight = torch.randn(6, 64)
    method = Rtn(bits, 16)
    planes = method.quantize(weight)
    scale = planes["scale"].float().repeat_interleave(16, 1)
    error = (dequantized(method, weight) - weight).abs()
    # The range of b bits is asymmetric, so that a group's largest value may move by a whole step.
    assert (error <= scale.abs() * 0.5 * (1 + 1e-3)).float().mean() > 1 - 1 / 16
    assert (error <= scale.abs() * (1 + 1e-3)).all()


def shared() -> Program:
    return canonical(decoder(tied=True), *example_ids())


def stored(program: Program) -> list[str]:
    read = {n for stage in program.stages.values() for n in stage.weight_names()}
    return sorted(n for n in read if n.startswith("tokens.weight"))


def test_equal_methods_share_one_packed_copy() -> None:
    program = shared()
    run_passes(program, QuantizeWeights(choose(program, Rtn(4, 16))))
    assert stored(program) == ["tokens.weight.codes", "tokens.weight.scale"]


def test_different_methods_make_two_copies() -> None:
    program = shared()
    choices = choose(program, Rtn(4, 16), ("linear",)) | choose(program, Rtn(8, 16), ("embedding",))
    run_passes(program, QuantizeWeights(choices))
    names = stored(program)
    assert len(names) == 4
    assert len({program.weights[name].shape for name in names if name.endswith("codes")}) == 2


@pytest.mark.parametrize(("own", "wanted"), ((None, "int8"), ("source", "source")))
def test_activations_follow_the_method_then_the_target(own: Any, wanted: str) -> None:
    _, program = quantizable()
    method = Rtn(4, 16, activations=own)
    run_passes(program, QuantizeWeights(choose(program, method, ("linear",)), activations="int8"))
    calls = [n for _, n in program.nodes() if "quantized_linear" in str(n.target)]
    assert len(calls) == 2
    assert {node.args[-1] for node in calls} == {wanted}


def test_weights_are_read_only_when_they_are_written() -> None:
    _, program = quantizable()
    for name, weight in list(program.weights.items()):

        def unread(name: str = name) -> torch.Tensor:
            raise AssertionError(f"{name} was read")

        program.weights.set(name, type(weight)(weight.shape, weight.dtype, unread, weight.origin))
    run_passes(program, QuantizeWeights(choose(program, Rtn(4, 16))))
    with pytest.raises(AssertionError, match="kept.weight was read"):
        program.weights["kept.weight.codes"].load()


def test_width_that_fills_no_group() -> None:
    torch.manual_seed(1)
    module = nn.Linear(20, 3).eval()
    x = torch.randn(4, 20)
    program = capture(module, x)
    run_passes(program, QuantizeWeights(choose(program, Rtn(8, 32)), activations="source"))
    got = run(program, "forward", {"input_": x})["output"]
    expected = x @ dequantized(Rtn(8, 32), module.weight.detach()).T + module.bias
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
