"""Packed weights mean the same values in ONNX, bit for bit."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx_ir import tensor_adapters

from effc.export.onnx.lowering import Graph
from effc.kernels.packing.bits import unpack_bits
from effc.kernels.packing.group_affine import GroupAffine
from effc.kernels.packing.onnx import Blocks, columns_first, matmul_nbits

# Either type of scales in half of the cases.
SCALES = {True: torch.float16, False: torch.float32}

CASES = [
    (bits, group, symmetric, columns)
    for bits, group, symmetric in itertools.product(
        (8, 4, 3, 2), (16, 64, 512, None), (True, False)
    )
    for columns in (96, 200)
]


def graph(planes: dict[str, torch.Tensor]) -> tuple[Graph, dict[str, ir.Value]]:
    """A graph that holds nothing but the planes."""
    values = {
        name: ir.Value(
            name=name,
            shape=ir.Shape(tensor.shape),
            type=ir.TensorType(tensor_adapters.from_torch_dtype(tensor.dtype)),
            const_value=tensor_adapters.TorchTensor(tensor, name=name),
        )
        for name, tensor in planes.items()
    }
    made = ir.Graph([], [], nodes=[], initializers=list(values.values()), opset_imports={"": 23})
    return Graph(ir.Model(made, ir_version=10), 23, contrib=True, grouped=False), values


def held(value: ir.Value | None) -> np.ndarray | None:
    if value is None:
        return None
    assert value.const_value is not None
    found = value.const_value.numpy()
    assert list(found.shape) == list(value.shape or ())
    return found


@pytest.mark.parametrize(("bits", "group", "symmetric", "columns"), CASES)
def test_matmul_nbits_dequantizes_to_the_same_values(
    bits: int, group: int | None, symmetric: bool, columns: int
) -> None:
    layout = GroupAffine(bits, group, symmetric, SCALES[symmetric])
    planes = layout.pack(torch.randn(5, columns))
    g, values = graph(planes)
    blocks = Blocks.of(bits, group or columns, columns, widths=(2, 4, 8), largest=256)
    made = matmul_nbits(
        g, blocks, values["codes"], values["scale"], values.get("zero"), torch.float32
    )
    codes, scale, zero = (held(value) for value in made)
    assert codes is not None and scale is not None and blocks.size in (16, 32, 64, 128, 256)
    # The definition in the documentation of MatMulNBits.
    each = unpack_bits(torch.from_numpy(codes), blocks.bits).float()  # [N, blocks, size]
    points = torch.full(scale.shape, 2.0 ** (blocks.bits - 1))
    if zero is not None:
        points = unpack_bits(torch.from_numpy(zero), blocks.bits)[:, : scale.shape[1]].float()
    weight = (each - points[..., None]) * torch.from_numpy(scale)[..., None]
    assert torch.equal(weight.flatten(1)[:, :columns], layout.unpack(planes, columns))


@pytest.mark.parametrize(("bits", "group", "symmetric", "columns"), CASES)
def test_dequantize_linear_dequantizes_to_the_same_values(
    bits: int, group: int | None, symmetric: bool, columns: int
) -> None:
    layout = GroupAffine(bits, group, symmetric, SCALES[symmetric])
    planes = layout.pack(torch.randn(5, columns))
    g, values = graph(planes)
    blocks = Blocks.of(bits, group or columns, columns, widths=(2, 4, 8), largest=256)
    made = columns_first(
        g, blocks, values["codes"], values["scale"], values.get("zero"), torch.float32
    )
    codes, scale, *zeros = (held(value) for value in made)
    assert codes is not None and scale is not None and codes.shape == (columns, 5)
    block = np.arange(columns) // blocks.size
    points = zeros[0][block].astype(np.float32) if zeros else 0  # type: ignore[index]
    weight = (codes.astype(np.float32) - points) * scale[block]
    assert torch.equal(torch.from_numpy(weight).t(), layout.unpack(planes, columns))


def test_codes_of_the_same_width_are_not_touched() -> None:
    """The bytes of the artifact are the bytes of the file: nothing is computed, nothing copied."""
    planes = GroupAffine(4, 32, True).pack(torch.randn(6, 128))
    g, values = graph(planes)
    blocks = Blocks.of(4, 32, 128, widths=(2, 4, 8), largest=256)
    codes, _, _ = matmul_nbits(g, blocks, values["codes"], values["scale"], None, torch.float32)
    assert codes.const_value is not None
    assert codes.const_value.tobytes() == planes["codes"].numpy().tobytes()
    assert np.shares_memory(codes.const_value.numpy(), planes["codes"].numpy())
