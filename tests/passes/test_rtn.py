"""Round to nearest as a policy's method: options, refusals, planes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from effc.diagnostics import EffcError, PolicyError
from effc.kernels.packing.cases import random_tensor
from effc.kernels.packing.group_affine import GroupAffine
from effc.passes.quantization.method import QuantizationMethod
from effc.passes.quantization.rtn import Rtn
from effc.spec.options import OptionError, method_info_from_dataclass


@pytest.mark.parametrize(
    ("options", "layout"),
    (
        ({}, GroupAffine(4, 32, True)),
        ({"bits": 8, "group": 64, "symmetric": False}, GroupAffine(8, 64, False)),
        ({"group": "row"}, GroupAffine(4, None, True)),
        ({"bits": 3, "symmetric": False}, GroupAffine(3, 32, False)),
        ({"bits": 2, "group": 16}, GroupAffine(2, 16, True)),
    ),
)
def test_options_choose_the_layout(options: dict[str, object], layout: GroupAffine) -> None:
    method = Rtn(**options)
    weight = random_tensor(2, 10, 100)
    planes = method.quantize(weight)
    assert method.layout() == layout
    assert method.bytes(weight.shape) == sum(plane.nbytes for plane in planes.values())
    assert method.plane_specs(weight.shape) == layout.plane_specs(weight.shape)
    for name, plane in layout.pack(weight).items():
        assert torch.equal(planes[name], plane), name


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    (
        ("bits", 5, "8, 4, 3 or 2, found 5"),
        ("bits", 1, "8, 4, 3 or 2, found 1"),
        ("bits", 4.0, "8, 4, 3 or 2, found 4.0"),
        ("bits", True, "8, 4, 3 or 2, found true"),
        ("group", 24, 'a power of two >= 16, or "row", found 24'),
        ("group", 8, "found 8"),
        ("group", 32.0, "found 32.0"),
        ("group", "column", 'found "column"'),
        ("group", None, "found None"),
        ("symmetric", 1, "true or false, found 1"),
        ("activations", "int4", '"source" or "int8", found "int4"'),
    ),
)
def test_wrong_value_is_refused_by_name(option: str, value: object, allowed: str) -> None:
    with pytest.raises(PolicyError) as caught:
        Rtn(**{option: value})
    assert caught.value.code == "E0205"
    assert f"option '{option}' of method \"rtn\" takes" in str(caught.value)
    assert str(caught.value).endswith(allowed)


def test_reader_of_policies_can_add_the_place_of_a_wrong_value() -> None:
    with pytest.raises(OptionError) as caught:
        Rtn(group=24)
    assert (caught.value.option, caught.value.found) == ("group", 24)


def test_policy_sees_every_option_with_its_help() -> None:
    info = method_info_from_dataclass(Rtn)
    assert (info.name, info.kind) == ("rtn", "quantize")
    assert [option.name for option in info.options] == ["bits", "group", "symmetric", "activations"]
    assert all(option.help for option in info.options)
    assert info.paper.startswith("https://")


def test_refused_weight_is_named() -> None:
    with pytest.raises(EffcError, match=r"model\.norm.*E0407"):
        Rtn().quantize(torch.full((2, 32), torch.nan), "model.norm")


@pytest.mark.parametrize("module", (QuantizationMethod.__module__, Rtn.__module__))
def test_method_file_needs_no_torch(module: str) -> None:
    code = f"import sys; sys.modules['torch'] = None; import {module}"
    finished = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
