"""What the packed layout refuses, and how it says so."""

from __future__ import annotations

import pytest
import torch

from effc.diagnostics import EffcError
from effc.kernels.packing.cases import random_tensor
from effc.kernels.packing.group_affine import GroupAffine


@pytest.mark.parametrize("value", (torch.nan, torch.inf, -torch.inf))
@pytest.mark.parametrize("symmetric", (True, False))
def test_values_that_are_not_finite_are_refused(value: float, symmetric: bool) -> None:
    weight = random_tensor(3, 40)
    weight[1, 39] = value
    with pytest.raises(EffcError, match=r"lm_head\.weight.*E0407.*not finite"):
        GroupAffine(4, 32, symmetric).pack(weight, "lm_head.weight")


@pytest.mark.parametrize("symmetric", (True, False))
def test_scales_beyond_float16_are_refused(symmetric: bool) -> None:
    weight = torch.ones(2, 3, 32)
    weight[1, 2, 5] = 2.0**20
    with pytest.raises(EffcError, match=r"experts, rows 0 to 2 of expert 1.*E0407.*65504"):
        GroupAffine(4, 32, symmetric).pack(weight, "experts")


def test_scales_of_float32_reach_further() -> None:
    weight = torch.full((2, 32), 2.0**20)
    layout = GroupAffine(4, 32, True, torch.float32)
    assert torch.equal(layout.unpack(layout.pack(weight), 32), weight)


def test_scales_of_another_type_are_refused() -> None:
    with pytest.raises(EffcError, match=r"E0503.*scales of torch\.bfloat16"):
        GroupAffine(4, 32, True, torch.bfloat16)


def test_largest_scale_is_taken() -> None:
    layout = GroupAffine(4, 16, True)
    weight = torch.full((1, 16), 8 * 65504.0)
    assert torch.equal(layout.unpack(layout.pack(weight), 16), weight)
    with pytest.raises(EffcError, match="E0407"):
        layout.pack(weight * 1.0001)


@pytest.mark.parametrize("shape", ((5,), (2, 3, 4, 5), (3, 0)))
def test_shapes_that_are_no_matrices_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(EffcError, match="E0407"):
        GroupAffine(4, 32, True).pack(torch.zeros(shape))


@pytest.mark.parametrize(
    ("bits", "group"), ((1, 32), (5, 32), (16, 32), (4, 8), (4, 24), (4, 0), (8, -16))
)
def test_layouts_that_do_not_exist_are_refused(bits: int, group: int) -> None:
    with pytest.raises(EffcError, match="E0503"):
        GroupAffine(bits, group, True)


def test_planes_of_another_layout_are_refused() -> None:
    planes = GroupAffine(4, 32, False).pack(torch.ones(2, 64))
    for layout in (GroupAffine(4, 32, True), GroupAffine(8, 32, False), GroupAffine(4, 16, False)):
        with pytest.raises(EffcError, match="E0503.*plane"):
            layout.unpack(planes, 64)
