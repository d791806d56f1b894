"""Page formats: what they keep, what they lose, and what they weigh."""

from __future__ import annotations

import pytest
import torch

from effc.diagnostics import InternalError
from effc.kernels.paged.formats import FORMATS, page_format, plain_format

PLAIN = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@pytest.mark.parametrize("name", FORMATS)
def test_planes_have_the_declared_shapes_types_and_bytes(name: str) -> None:
    form = page_format(name)
    values = torch.randn(3, 2, 4, 24, generator=torch.Generator().manual_seed(0))
    planes = form.encode(values)
    assert len(planes) == len(form.planes)
    for plane, declared in zip(planes, form.planes, strict=True):
        assert plane.dtype == declared.dtype
        assert plane.shape == (3, 2, 4, *declared.shape(24))
    assert form.width(planes) == 24
    assert sum(plane.nbytes for plane in planes) == 3 * 2 * 4 * form.bytes_per_token(24)


@pytest.mark.parametrize(("name", "dtype"), PLAIN.items())
def test_plain_formats_round_once(name: str, dtype: torch.dtype) -> None:
    values = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    decoded = page_format(name).decode(page_format(name).encode(values), torch.float32)
    assert torch.equal(decoded, values.to(dtype).float())
    assert plain_format(dtype) == name


def test_int8_error_is_at_most_half_a_scale() -> None:
    form = page_format("int8")
    generator = torch.Generator().manual_seed(2)
    magnitude = 10 ** (torch.rand(400, 1, generator=generator) * 6 - 2)
    values = torch.randn(400, 33, generator=generator) * magnitude
    codes, scale = form.encode(values)
    error = (form.decode([codes, scale], torch.float64) - values.double()).abs()
    # fp16 rounding of the scale moves the largest element, at code 127, by 127 * 2^-11 < 1/16.
    assert bool((error <= scale.double()[:, None] * (0.5 + 1 / 16)).all())
    assert bool((codes.abs().amax(1) == 127).all())


def test_int8_codes_are_symmetric_and_round_to_even() -> None:
    codes, scale = page_format("int8").encode(torch.tensor([[127.0, -127.0, 0.5, 1.5, -2.5]]))
    assert scale.tolist() == [1.0]
    assert codes.tolist() == [[127, -127, 0, 2, -2]]


def test_int8_keeps_zeros_and_stays_finite_outside_the_range_of_its_scale() -> None:
    form = page_format("int8")
    values = torch.tensor([[0.0, 0.0], [1e-9, -1e-9], [1e8, -1e7]])
    codes, scale = form.encode(values)
    assert codes[:2].eq(0).all() and scale[:2].eq(0).all()
    assert form.decode([codes, scale], torch.float32).isfinite().all()


def test_int8_saturates_where_the_scale_is_rounded_down() -> None:
    """The smallest fp16 number is 2^-24; 1.4 times it is stored as 1."""
    x = 127 * 1.4 * 2**-24
    codes, scale = page_format("int8").encode(torch.tensor([[x, -x, x / 2]]))
    assert scale.tolist() == [2**-24]
    assert codes.tolist() == [[127, -127, 89]]


def test_input_names_follow_the_planes() -> None:
    assert page_format("bf16").input_names("k3") == ["k3"]
    assert page_format("int8").input_names("v0") == ["v0_codes", "v0_scale"]


def test_unknown_format_is_refused_by_name() -> None:
    with pytest.raises(
        InternalError, match=r"unknown page format 'int9'(.|\n)*did you mean 'int8'"
    ):
        page_format("int9")
