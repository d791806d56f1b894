"""The packed layout: exact where it must be, bounded elsewhere, as many bytes as it says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from effc.kernels.packing import group_affine
from effc.kernels.packing.bits import pack_bits, unpack_bits
from effc.kernels.packing.cases import dequantized, random_tensor
from effc.kernels.packing.group_affine import GroupAffine

examples = settings(max_examples=60, deadline=None, derandomize=True)
layouts = st.builds(
    GroupAffine,
    bits=st.sampled_from((8, 4, 3, 2)),
    group=st.sampled_from((16, 32, 128, None)),
    symmetric=st.booleans(),
)
wide_layouts = st.builds(replace, layouts, scales=st.sampled_from(group_affine.SCALES))
shapes = st.tuples(st.integers(1, 5), st.integers(1, 150))
seeds = st.integers(0, 2**31 - 1)


def read(layout: GroupAffine, planes: dict[str, torch.Tensor], columns: int) -> np.ndarray:
    return dequantized(planes["codes"], planes["scale"], planes.get("zero"), layout.bits, columns)


def per_column(layout: GroupAffine, plane: np.ndarray, columns: int) -> np.ndarray:
    return np.repeat(plane, layout.group or columns, axis=-1)[..., :columns]


@examples
@given(layout=wide_layouts, rows=st.integers(1, 4), groups=st.integers(1, 3), seed=seeds)
def test_values_of_the_grid_are_packed_exactly(
    layout: GroupAffine, rows: int, groups: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    top = 2**layout.bits - 1
    width = layout.group or 37
    groups = groups if layout.group else 1
    codes = rng.integers(0, top + 1, (rows, groups, width))
    codes[..., 3] = 0
    # A float16 pattern without sign, from the least subnormal to the largest that 2^b steps allow.
    scale = rng.integers(1, 0x7800, (rows, groups, 1)).astype(np.int16).view(np.float16)
    if layout.symmetric:
        scale = scale * rng.choice([-1, 1], scale.shape).astype(np.float16)
        zero = np.full(scale.shape, 2 ** (layout.bits - 1))
    else:
        codes[..., 5] = top
        zero = rng.integers(0, top + 1, scale.shape)
    weight = ((codes - zero) * scale.astype(np.float64)).reshape(rows, -1)

    planes = layout.pack(torch.from_numpy(weight))

    assert np.array_equal(planes["scale"].numpy(), scale[..., 0])
    stored = unpack_bits(planes["codes"], layout.bits)[:, : groups * width].numpy()
    assert np.array_equal(stored, codes.reshape(rows, -1))
    if not layout.symmetric:
        stored = unpack_bits(planes["zero"], layout.bits)[:, :groups].numpy()
        assert np.array_equal(stored, zero[..., 0])
    assert np.array_equal(layout.unpack(planes, weight.shape[1]).numpy(), weight)


@examples
@given(
    layout=wide_layouts,
    shape=shapes,
    seed=seeds,
    exponent=st.integers(-8, 3),
    shift=st.floats(-2, 2),
)
def test_error_is_at_most_half_a_step(
    layout: GroupAffine, shape: tuple[int, int], seed: int, exponent: int, shift: float
) -> None:
    weight = (random_tensor(*shape, seed=seed) + shift) * 10.0**exponent
    planes = layout.pack(weight)
    step = per_column(layout, np.abs(planes["scale"].numpy().astype(np.float64)), shape[1])
    exact = weight.numpy().astype(np.float64)
    error = np.abs(read(layout, planes, shape[1]) - exact)
    # The quotient w / s, at most 2^b, is rounded to float32 before it is rounded to an integer.
    half = 0.5 + 2**layout.bits * 2.0**-24
    clamped = np.zeros(shape, dtype=bool)
    if layout.symmetric:
        sign = -np.sign(per_column(layout, planes["scale"].numpy(), shape[1]))
        clamped = -sign * exact > (2 ** (layout.bits - 1) - 0.5) * step
    assert (error <= np.where(clamped, 0.5 + half, half) * step).all()


@examples
@given(layout=layouts, shape=shapes, seed=seeds)
def test_no_other_value_of_the_group_is_nearer(
    layout: GroupAffine, shape: tuple[int, int], seed: int
) -> None:
    weight = random_tensor(*shape, seed=seed)
    planes = layout.pack(weight)
    columns = shape[1]
    scale = per_column(layout, planes["scale"].numpy().astype(np.float64), columns)
    zero = np.full(planes["scale"].shape, 2 ** (layout.bits - 1))
    if not layout.symmetric:
        zero = unpack_bits(planes["zero"], layout.bits)[:, : zero.shape[1]].numpy().astype(int)
    origin = per_column(layout, zero, columns)
    levels = np.arange(2**layout.bits)
    values = (levels - origin[..., None]) * scale[..., None]  # [rows, columns, 2^b]
    nearest = np.abs(values - weight.numpy()[..., None]).min(-1)
    found = np.abs(read(layout, planes, columns) - weight.numpy())
    assert (found <= nearest + 2.0**-24 * 2**layout.bits * np.abs(scale)).all()


@examples
@given(layout=wide_layouts, shape=shapes, seed=seeds)
def test_unpack_agrees_with_an_independent_reader(
    layout: GroupAffine, shape: tuple[int, int], seed: int
) -> None:
    planes = layout.pack(random_tensor(*shape, seed=seed))
    exact = read(layout, planes, shape[1])
    assert np.array_equal(layout.unpack(planes, shape[1]).numpy(), exact.astype(np.float32))
    if layout.scales == torch.float16:
        assert np.array_equal(exact, exact.astype(np.float32))


@examples
@given(layout=layouts, shape=shapes, seed=seeds)
def test_packing_again_changes_nothing(
    layout: GroupAffine, shape: tuple[int, int], seed: int
) -> None:
    """Holds for symmetric groups of normal scale, and asymmetric ones that use both end codes."""
    first = layout.pack(random_tensor(*shape, seed=seed))
    again = layout.pack(layout.unpack(first, shape[1]))
    groups = layout.groups(shape[1])
    codes = unpack_bits(first["codes"], layout.bits).unflatten(-1, (groups, -1))
    fixed = torch.ones(shape[0], groups, dtype=torch.bool)
    if not layout.symmetric:
        fixed = (codes.amin(-1) == 0) & (codes.amax(-1) == 2**layout.bits - 1)
    assert torch.equal(first["scale"][fixed], again["scale"][fixed])
    codes_again = unpack_bits(again["codes"], layout.bits).unflatten(-1, (groups, -1))
    assert torch.equal(codes[fixed], codes_again[fixed])


@examples
@given(layout=wide_layouts, shape=shapes, experts=st.integers(0, 3))
def test_bytes_are_those_of_the_planes(
    layout: GroupAffine, shape: tuple[int, int], experts: int
) -> None:
    full = (experts, *shape) if experts else shape
    planes = layout.pack(random_tensor(*full))
    specs = {name: (tuple(plane.shape), plane.dtype) for name, plane in planes.items()}
    assert specs == layout.plane_specs(full)
    assert layout.bytes(full) == sum(plane.nbytes for plane in planes.values())


@pytest.mark.parametrize("bits", (8, 4, 3, 2))
@pytest.mark.parametrize("group", (16, 32, 128))
@pytest.mark.parametrize("symmetric", (True, False))
@pytest.mark.parametrize("scales", group_affine.SCALES)
def test_bits_per_weight_have_the_closed_form(
    bits: int, group: int, symmetric: bool, scales: torch.dtype
) -> None:
    shape = (3, 512, 1024)
    expected = bits + 8 * scales.itemsize / group + (0 if symmetric else bits / group)
    layout = GroupAffine(bits, group, symmetric, scales)
    assert layout.bytes(shape) * 8 == expected * np.prod(shape)


@pytest.mark.parametrize(
    ("layout", "shape", "expected"),
    (
        (GroupAffine(4, 32, True), (10, 33), 10 * (32 + 2 * 2)),
        (GroupAffine(4, 32, False), (10, 33), 10 * (32 + 2 * 2 + 1)),
        (GroupAffine(4, 16, False), (10, 33), 10 * (24 + 2 * 3 + 2)),
        (GroupAffine(8, 16, False), (10, 33), 10 * (48 + 2 * 3 + 3)),
        (GroupAffine(4, None, False), (10, 33), 10 * (17 + 2 + 1)),
        (GroupAffine(8, None, True), (2, 10, 33), 2 * 10 * (33 + 2)),
        (GroupAffine(2, 16, False), (10, 33), 10 * (12 + 2 * 3 + 1)),
        (GroupAffine(2, None, True), (10, 33), 10 * (9 + 2)),
        (GroupAffine(3, 16, False), (10, 33), 10 * (18 + 2 * 3 + 3)),
        (GroupAffine(3, None, True), (10, 33), 10 * (15 + 2)),
    ),
)
def test_padding_is_counted(layout: GroupAffine, shape: tuple[int, ...], expected: int) -> None:
    assert layout.bytes(shape) == expected


def test_low_nibble_holds_the_even_column() -> None:
    weight = torch.arange(16.0).reshape(1, 16) - 8
    planes = GroupAffine(4, 16, True).pack(weight)
    assert planes["codes"].tolist() == [[0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE]]
    assert planes["scale"].tolist() == [[1.0]]


def test_four_2_bit_codes_share_a_byte() -> None:
    weight = torch.tensor([[-2.0, -1, 0, 1] * 4])
    planes = GroupAffine(2, 16, True).pack(weight)
    assert planes["codes"].tolist() == [[0b11_10_01_00] * 4]
    assert planes["scale"].tolist() == [[1.0]]


def test_high_bits_of_3_bit_codes_stand_apart() -> None:
    weight = torch.arange(8.0).repeat(2).reshape(1, 16) - 4
    planes = GroupAffine(3, 16, True).pack(weight)
    assert planes["codes"].tolist() == [[0b11_10_01_00] * 4 + [0b11110000] * 2]
    assert planes["scale"].tolist() == [[1.0]]


def test_zero_points_are_packed_along_groups() -> None:
    groups = [torch.linspace(0, 15, 16) - zero for zero in (3, 5, 9)]
    planes = GroupAffine(4, 16, False).pack(torch.cat(groups).unsqueeze(0))
    assert planes["zero"].tolist() == [[0x53, 0x09]]


@pytest.mark.parametrize("symmetric", (True, False))
@pytest.mark.parametrize(("group", "columns"), ((16, 21), (None, 21)))
def test_padding_has_the_code_of_zero(symmetric: bool, group: int | None, columns: int) -> None:
    layout = GroupAffine(4, group, symmetric)
    planes = layout.pack(random_tensor(3, columns) + 0.3)
    pad = unpack_bits(planes["codes"], 4)[:, columns:]
    zero = torch.full((3, 1), 8)
    if not symmetric:
        zero = unpack_bits(planes["zero"], 4)[:, layout.groups(columns) - 1].unsqueeze(1)
    assert pad.numel() and (pad == zero).all()


@pytest.mark.parametrize("bits", (8, 4, 3, 2))
def test_codes_survive_the_round_trip(bits: int) -> None:
    codes = torch.arange(2**bits, dtype=torch.uint8).repeat(3, 1)
    assert torch.equal(unpack_bits(pack_bits(codes, bits), bits), codes)


@pytest.mark.parametrize("bits", (8, 4, 3, 2))
@pytest.mark.parametrize("symmetric", (True, False))
def test_all_codes_are_used(bits: int, symmetric: bool) -> None:
    planes = GroupAffine(bits, 64, symmetric).pack(random_tensor(512, 256))
    assert len(unpack_bits(planes["codes"], bits).unique()) == 2**bits


def test_signed_range_has_less_error_than_a_balanced_one() -> None:
    groups = random_tensor(4096, 32)
    scale = (groups.abs().amax(-1, keepdim=True) / 7).half().float()
    balanced = (groups / scale).round().clamp(-7, 7) * scale
    layout = GroupAffine(4, 32, True)
    ours = layout.unpack(layout.pack(groups), 32)
    assert (ours - groups).square().mean() < 0.95 * (balanced - groups).square().mean()


@pytest.mark.parametrize("layout", (GroupAffine(4, 16, True), GroupAffine(8, None, False)))
def test_zero_groups_stay_zero(layout: GroupAffine) -> None:
    planes = layout.pack(torch.zeros(2, 48))
    assert (planes["scale"] == 0).all()
    assert torch.equal(layout.unpack(planes, 48), torch.zeros(2, 48))
    assert not layout.unpack(planes, 48).signbit().any()


@pytest.mark.parametrize("dtype", (torch.float16, torch.bfloat16, torch.float64))
def test_any_floating_dtype_and_strides_are_taken(dtype: torch.dtype) -> None:
    layout = GroupAffine(4, 32, False)
    weight = random_tensor(40, 7).to(dtype).T
    expected = layout.pack(weight.to(torch.float32).contiguous())
    for name, plane in layout.pack(weight).items():
        assert torch.equal(plane, expected[name]), name


def test_experts_are_packed_like_matrices() -> None:
    layout = GroupAffine(4, 16, False)
    weight = random_tensor(3, 5, 40)
    planes = layout.pack(weight)
    for expert in range(3):
        for name, plane in layout.pack(weight[expert]).items():
            assert torch.equal(planes[name][expert], plane), name
    unpacked = [layout.unpack(layout.pack(matrix), 40) for matrix in weight]
    assert torch.equal(layout.unpack(planes, 40), torch.stack(unpacked))


def test_blocks_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    layout, weight = GroupAffine(4, 16, False), random_tensor(11, 40)
    whole = layout.pack(weight)
    monkeypatch.setattr(group_affine, "BLOCK_VALUES", 100)
    assert all(torch.equal(plane, whole[name]) for name, plane in layout.pack(weight).items())
    assert torch.equal(layout.unpack(whole, 40), torch.from_numpy(read(layout, whole, 40)).float())


class LargestTensor(TorchDispatchMode):
    """Remembers the bytes of the largest new tensor."""

    nbytes = 0

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, torch.Tensor) and not func.is_view:
                self.nbytes = max(self.nbytes, value.nbytes)
        return result


def test_temporary_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = random_tensor(64, 4096)
    monkeypatch.setattr(group_affine, "BLOCK_VALUES", 2 * 4096)
    layout = GroupAffine(4, 32, False)
    with LargestTensor() as largest:
        planes = layout.pack(weight)
    assert largest.nbytes == planes["codes"].nbytes
    assert planes["codes"].nbytes > 4 * group_affine.BLOCK_VALUES
