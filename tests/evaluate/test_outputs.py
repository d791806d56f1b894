"""Models that are called instead of decoded."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from effc.diagnostics import EffcError, PolicyError
from effc.evaluate.fired import MethodUse
from effc.evaluate.gates import refuse_unmeasurable
from effc.evaluate.measure import measure_outputs
from effc.evaluate.outputs import compare_outputs, random_inputs
from effc.evaluate.subject import Subject
from effc.ir.program import Program
from effc.spec.schema import QualitySpec
from tests.evaluate.models import linears, lowered, quantized
from tests.programs import canonical


class Encoder(nn.Module):
    """Token and segment ids, a mask and a bias to one vector per text."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.segments = nn.Embedding(50, 32), nn.Embedding(2, 32)
        self.layers = nn.ModuleList([nn.Linear(32, 32) for _ in range(2)])

    def forward(
        self, ids: torch.Tensor, mask: torch.Tensor, segments: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        x = self.tokens(ids) + self.segments(segments.reshape(ids.shape)) + bias.unsqueeze(1)
        for layer in self.layers:
            x = x + torch.relu(layer(x))
        weight = mask.unsqueeze(-1).to(x.dtype)
        return (x * weight).sum(1) / weight.sum(1)


@pytest.fixture(scope="module")
def program() -> Program:
    torch.manual_seed(3)
    ids = torch.randint(2, (2, 5))
    return canonical(Encoder().eval(), ids, torch.ones_like(ids), ids, torch.randn(2, 32))


def test_random_inputs_suit_the_model(program: Program) -> None:
    inputs = random_inputs(program)
    assert 2 < int(inputs["ids"].max()) < 50
    assert set(inputs["segments"].unique().tolist()) == {0, 1}
    assert bool((inputs["mask"] == 1).all())
    assert inputs["bias"].dtype == torch.float32
    assert float(inputs["bias"].std()) == pytest.approx(1.0, abs=0.1)
    again = random_inputs(program)
    assert all(torch.equal(inputs[name], again[name]) for name in inputs)


def test_a_program_gives_the_same_outputs_as_itself(program: Program) -> None:
    subject = Subject(lowered(program))
    outputs, layers = compare_outputs(subject, subject, random_inputs(program))
    assert [entry["relative_error"] for entry in outputs] == [0.0]
    assert outputs[0]["cosine"] == pytest.approx(1.0, abs=1e-12)
    assert [entry["relative_error"] for entry in layers.result()] == [0.0, 0.0]


def test_distances_are_those_of_the_outputs(program: Program) -> None:
    other = lowered(program, quantized(linears(program), bits=4))
    inputs = random_inputs(program)
    subjects = Subject(lowered(program)), Subject(other)
    outputs, layers = compare_outputs(*subjects, inputs)
    (x,), (y,) = (subject("forward", inputs).values() for subject in subjects)
    relative = float((y - x).square().sum().sqrt() / x.square().sum().sqrt())
    cosine = float(torch.cosine_similarity(x.flatten(), y.flatten(), dim=0))
    assert outputs[0]["relative_error"] == pytest.approx(relative, rel=1e-4)
    assert outputs[0]["cosine"] == pytest.approx(cosine, rel=1e-5)
    assert 0 < relative < 0.5
    assert [entry["layer"] for entry in layers.result()] == [0, 1]


def test_inputs_that_do_not_fit_are_refused(program: Program) -> None:
    subject = Subject(lowered(program))
    inputs = random_inputs(program) | {"ids": torch.full((4, 16), 50)}
    with pytest.raises(EffcError, match="cannot take these inputs") as error:
        compare_outputs(subject, subject, inputs)
    assert error.value.code == "E0409"


def test_everything_about_an_encoder(program: Program) -> None:
    plan = quantized(linears(program), bits=8)
    found = measure_outputs(
        lowered(program),
        lowered(program, plan),
        quality=QualitySpec(max_time_ratio=1000.0),
        methods=MethodUse.of_steps(plan.steps),
        timing=True,
        rounds=2,
    )
    assert found["outputs"][0]["cosine"] > 0.99
    assert found["time"]["call"]["rounds"] == 2
    assert [entry["ok"] for entry in found["fired"]] == [True]
    assert [gate["name"] for gate in found["gates"]] == ["max_time_ratio"]
    assert math.isfinite(found["gates"][0]["value"])
    before, after = (found["bytes"][name]["weights"] for name in ("original", "rewritten"))
    assert before - after == 2 * 32 * (32 * 4 - 32 - 2)


def test_bounds_on_probabilities_are_refused_by_name() -> None:
    quality = QualitySpec(max_kl=0.1, min_top1=0.9, max_time_ratio=1.0)
    with pytest.raises(PolicyError, match="max_kl, min_top1 cannot be measured") as error:
        refuse_unmeasurable(quality, generates=False, where="encoder")
    assert error.value.code == "E0211"
    refuse_unmeasurable(quality, generates=True, where="decoder")
    refuse_unmeasurable(QualitySpec(max_time_ratio=1.0), generates=False, where="encoder")
    refuse_unmeasurable(None, generates=False, where="encoder")
