"""`raise-dequantized-linear` changes no value of a weight, and stores what it must."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from effc.ir.journal import Journal
from effc.ir.program import Program
from effc.kernels.packing.cases import dequantized
from effc.passes.raising.quantized_linear import RaiseQuantizedLinear
from tests.passes.case import values
from tests.passes.dequantized import blocks, levels, plain, product, stored, turned


def raised(build: Callable[[], Program]) -> tuple[Program, Any]:
    """The program after the pass, and its one packed linear."""
    program = build()
    result = RaiseQuantizedLinear()(program, Journal())
    assert result.count("applied") == 1
    (node,) = [n for _, n in program.nodes() if str(n.target).startswith("effc.quantized_linear")]
    return program, node


def weight_of(program: Program, node: Any) -> np.ndarray:
    """What the planes stand for, read by the tests' own reader, [out, in] in float64."""
    planes = [None if p is None else program.weights[str(p.target)].load() for p in node.args[1:4]]
    bits, _, columns, activations = node.args[5:]
    assert activations == "source"
    return dequantized(*planes, bits, columns)


def steps(*shape: int) -> Tensor:
    return values(*shape).abs() / 100


RANGES = {
    "2 bits": (-2, 1),
    "3 bits": (-3, 3),
    "4 bits": (-8, 7),
    "4 bits, unsigned": (0, 15),
    "8 bits": (-128, 127),
    "8 bits, unsigned": (0, 255),
}


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("form", ("product", "turned", "blocks"))
def test_values_are_those_of_the_file_and_codes_are_as_narrow_as_they_can_be(
    name: str, form: str
) -> None:
    low, high = RANGES[name]
    shape = {"product": (1, 6), "turned": (6, 1), "blocks": (3, 6)}[form]
    function = {"product": product, "turned": turned, "blocks": blocks}[form]
    w = levels(*((6, 40) if form == "turned" else (40, 6)), low=low, high=high)
    scale, zero = steps(*shape), levels(*shape, low=low, high=high, seed=1)
    program, node = raised(stored(function, w, scale, zero, width=40))
    s, z = (part.double().numpy() for part in (scale, zero))
    if form == "blocks":
        s, z = (part.repeat(16, 0)[:40] for part in (s, z))
    exact = (w.double().numpy() - z) * s
    found = weight_of(program, node)
    assert np.array_equal(found, exact if form == "turned" else exact.T)
    assert node.args[5] == int(name[0])


@pytest.mark.parametrize(
    ("w", "zero"),
    (
        (levels(40, 6), torch.zeros(1, 6, dtype=torch.int8)),
        (levels(40, 6, low=0, high=255), torch.full((1, 6), 128, dtype=torch.uint8)),
        (levels(40, 6, low=-8, high=7), torch.zeros(1, 6, dtype=torch.int8)),
    ),
)
def test_zero_points_in_the_middle_are_not_stored(w: Tensor, zero: Tensor) -> None:
    _, node = raised(stored(product, w, steps(1, 6), zero, width=40))
    assert node.args[3] is None


def test_one_scale_for_all_is_stored_per_row() -> None:
    program, node = raised(stored(plain, levels(40, 6), torch.tensor(0.25), width=40))
    assert program.weights[str(node.args[2].target)].load().tolist() == [[0.25]] * 6


def test_a_float16_scale_stays_one() -> None:
    def widened(x: Tensor, w: Tensor, scale: Tensor) -> Tensor:
        return x @ (w.float() * scale.float())

    scale = steps(1, 6).half()
    program, node = raised(stored(widened, levels(40, 6), scale, width=40))
    assert program.weights[str(node.args[2].target)].dtype == torch.float16
    exact = levels(40, 6).double().numpy() * scale.double().numpy()
    assert np.array_equal(weight_of(program, node), exact.T)


def test_a_bias_stays() -> None:
    def shifted(x: Tensor, w: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return torch.addmm(bias, x, w.float() * scale)

    bias = values(6)
    program, node = raised(stored(shifted, levels(40, 6), steps(1, 6), bias, width=40))
    assert torch.equal(program.weights[str(node.args[4].target)].load(), bias)
