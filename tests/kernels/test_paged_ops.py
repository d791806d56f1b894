"""The small operators of the decode stage, and what PyTorch asks of all of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

import effc.kernels.paged.op as paged
from effc.kernels.paged.formats import FORMATS, page_format


def pools(form: str, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return page_format(form).encode(torch.randn(5, 2, 4, 8, generator=generator))


def write_case(
    form: str, head_groups: int
) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(2, 2 * head_groups, 3, 8, generator=generator)
    slots = torch.randperm(20, generator=generator)[: 2 * head_groups * 3]
    slots = slots.view(2, head_groups, 3)
    slots[1, :, 2] = -1
    return pools(form), values, slots


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("head_groups", [1, 2])
def test_cache_write_puts_each_token_in_its_slot_and_touches_nothing_else(
    form: str, head_groups: int
) -> None:
    planes, values, slots = write_case(form, head_groups)
    expected = [plane.clone() for plane in planes]
    for b, h, t in torch.cartesian_prod(*map(torch.arange, slots.shape)).tolist():
        slot = int(slots[b, h, t])
        if slot < 0:
            continue
        encoded = page_format(form).encode(values[b, 2 * h : 2 * h + 2, t])
        for plane, new in zip(expected, encoded, strict=True):
            plane[slot // 4, :, slot % 4] = new
    before = [plane.clone() for plane in planes]
    written = paged.cache_write(planes, values, slots, form)
    assert all(map(torch.equal, written, expected))
    assert all(map(torch.equal, planes, before))
    assert paged.cache_write_(planes, values, slots, form) is None
    assert all(map(torch.equal, planes, expected))


def test_cache_write_in_place_reaches_a_strided_plane() -> None:
    planes, values, slots = write_case("fp32", 1)
    expected = paged.cache_write(planes, values, slots, "fp32")[0]
    strided = planes[0].transpose(0, 1).contiguous().transpose(0, 1)
    paged.cache_write_([strided], values, slots, "fp32")
    assert torch.equal(strided, expected)


def test_token_index_counts_from_the_length_and_marks_padding() -> None:
    result = paged.token_index(torch.tensor([5, 0]), torch.tensor([2, 3]), torch.zeros(2, 3))
    assert result.tolist() == [[5, 6, -1], [0, 1, 2]]


def test_select_rows_takes_rows_of_each_sequence() -> None:
    x = torch.arange(24.0).view(2, 3, 4)
    rows = torch.tensor([[2, 0], [1, 1]])
    assert torch.equal(paged.select_rows(x, rows), torch.stack([x[0, [2, 0]], x[1, [1, 1]]]))


def attend_arguments(form: str, tree: bool) -> tuple[Any, ...]:
    lengths, new_len = torch.tensor([3, 0]), torch.tensor([2, 1])
    return (
        torch.randn(2, 4, 2, 8, generator=torch.Generator().manual_seed(1)),
        pools(form),
        pools(form, 1),
        form,
        form,
        torch.tensor([[[0, 1]], [[2, -1]]], dtype=torch.int32),
        torch.arange(20, dtype=torch.int32).view(5, 4) % 8 if tree else None,
        paged.token_index(lengths, new_len, torch.zeros(2, 2)),
        lengths,
        torch.ones(2, 2, 2, dtype=torch.bool).tril() if tree else None,
        True,
        None,
        None,
        0.5,
        None,
        torch.zeros(4) if tree else None,
    )


CALLS = {
    "token_index": (
        paged.token_index,
        (torch.tensor([5, 0]), torch.tensor([2, 3]), torch.zeros(2, 3, dtype=torch.int64)),
    ),
    "select_rows": (paged.select_rows, (torch.randn(2, 3, 4), torch.tensor([[2], [0]]))),
    "cache_write": (paged.cache_write, (*write_case("int8", 2), "int8")),
    "cache_write_": (paged.cache_write_, (*write_case("int8", 2), "int8")),
    "attend": (paged.attend, attend_arguments("fp32", False)),
    "attend-tree": (paged.attend, attend_arguments("int8", True)),
}


@pytest.mark.parametrize("name", CALLS)
def test_operators_pass_opcheck(name: str) -> None:
    op, arguments = CALLS[name]
    torch.library.opcheck(op, arguments)


@pytest.mark.parametrize("name", CALLS)
def test_fakes_keep_sizes_symbolic(name: str) -> None:
    """Shapes must come out of the shape functions without fixing a size."""
    op, arguments = CALLS[name]
    real = op(*arguments)
    sizes = ShapeEnv()
    mode = FakeTensorMode(shape_env=sizes, allow_non_fake_inputs=False)

    def fake(value: Any) -> Any:
        if isinstance(value, list):
            return [fake(item) for item in value]
        return mode.from_tensor(value, static_shapes=False) if torch.is_tensor(value) else value

    with mode:
        result = op(*map(fake, arguments))
    assert sizes.guards == []
    if real is None:
        assert result is None
        return
    pairs = zip(
        real if isinstance(real, list) else [real],
        result if isinstance(result, list) else [result],
        strict=True,
    )
    for value, shape in pairs:
        assert value.dtype == shape.dtype
        assert [int(size) for size in shape.shape] == list(value.shape)
