"""Weights that come packed: MatMulNBits and GatherBlockQuantized.

Their layout is that of `effc.kernels.packing.group_affine`, so that planes are reshaped and never
repacked, and scales of float32 stay float32: nothing is rounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.ops.quantization import dequantize_linear
from effc.frontend.onnx.values import Mismatch, Unsupported, Value
from effc.ir.weights import Weight
from effc.kernels.packing.bits import pack_bits, packed_width
from effc.kernels.packing.group_affine import dequantize

aten = torch.ops.aten

INT8_ACTIVATIONS = 4
"""The accuracy level at which inputs are rounded to int8 per block."""


@dataclass(frozen=True)
class Packed:
    """Constants of a packed weight [rows, columns], and where its planes will be found.

    Attributes:
        stem: beginning of the planes' names.
        rows, columns: N and K.
        bits: of a code.
        group: columns that share a scale.
    """

    stem: str
    rows: int
    columns: int
    bits: int
    group: int

    @property
    def groups(self) -> int:
        """Groups per row."""
        return math.ceil(self.columns / self.group)

    @property
    def code_bytes(self) -> int:
        """Bytes of a row of codes."""
        padded = self.columns if self.group == self.columns else self.groups * self.group
        return packed_width(padded, self.bits)

    def codes(self, g: Builder, source: Weight, change: Callable[[Tensor], Tensor]) -> fx.Node:
        """The plane of codes; `change` gives its bytes, padded here to whole groups."""

        def plane(stored: Tensor) -> Tensor:
            packed = change(stored).reshape(self.rows, -1)
            return F.pad(packed, (0, self.code_bytes - packed.shape[-1]))

        return self._plane(g, "codes", source, plane, self.code_bytes, torch.uint8)

    def scales(self, g: Builder, source: Weight) -> fx.Node:
        """The plane of scales: float16 stays, other types become float32 without rounding."""
        dtype = torch.float16 if source.dtype == torch.float16 else torch.float32
        shape = (self.rows, self.groups)
        return self._plane(g, "scale", source, lambda s: s.reshape(shape), self.groups, dtype)

    def zeros(self, g: Builder, source: Weight, change: Callable[[Tensor], Tensor]) -> fx.Node:
        """The plane of zero points; `change` gives its bytes."""
        width = packed_width(self.groups, self.bits)
        return self._plane(
            g, "zero", source, lambda z: change(z).reshape(self.rows, width), width, torch.uint8
        )

    def _plane(
        self,
        g: Builder,
        name: str,
        source: Weight,
        change: Callable[[Tensor], Tensor],
        width: int,
        dtype: torch.dtype,
    ) -> fx.Node:
        full = f"{self.stem}.{name}"
        if full not in g.weights:
            made = source.map(
                lambda stored: change(stored).to(dtype).contiguous(),
                shape=(self.rows, width),
                dtype=dtype,
                origin=source.origin,
            )
            g.weights.set(full, made)
        return g.weight(full)


def matmul_nbits(
    g: Builder,
    a: Value,
    b: Value,
    scales: Value,
    zero_points: Value = None,
    g_idx: Value = None,
    bias: Value = None,
    *,
    K: int,  # noqa: N803, the names of the operator
    N: int,  # noqa: N803
    block_size: int,
    bits: int = 4,
    accuracy_level: int = 0,
    weight_prepacked: int = 0,
) -> Value:
    """com.microsoft.MatMulNBits as `effc::quantized_linear`.

    Args:
        a: [.., K].
        b: uint8 [N, blocks, bytes].
        scales: [N, blocks].
        zero_points: packed as b, uint8 [N, bytes]; or of the type of a, [N, blocks].
        bias: [N].
    """
    if g_idx is not None or weight_prepacked:
        raise Unsupported("g_idx" if g_idx is not None else "weight_prepacked = 1")
    codes, steps = _constant(g, b, "the weight"), _constant(g, scales, "the scales")
    packed = Packed(_stem(g, b), N, K, bits, block_size)
    if codes.numel != N * packed.code_bytes:
        raise Mismatch(f"{codes.numel} bytes of codes for K = {K}, N = {N}, {bits} bits")
    planes = packed.codes(g, codes, _same), packed.scales(g, steps)
    zero = None
    if zero_points is not None:
        zeros = _constant(g, zero_points, "the zero points")
        change = _zero_bytes(zeros, packed)
        if change is None:
            return g.call(aten.linear.default, a, _dense(g, packed, codes, steps, zeros), bias)
        zero = packed.zeros(g, zeros, change)
        if zeros.dtype != torch.uint8:
            accuracy_level = 0  # integer kernels take zero points that are integers
    activations = "int8" if accuracy_level == INT8_ACTIVATIONS else "source"
    form = bits, block_size, K, activations
    return g.call(torch.ops.effc.quantized_linear.default, a, *planes, zero, bias, *form)


def _zero_bytes(zeros: Weight, packed: Packed) -> Callable[[Tensor], Tensor] | None:
    """How stored zero points become a plane; None when they are no codes."""
    if zeros.dtype == torch.uint8:
        return _same
    values = zeros.load().to(torch.float32)
    if not bool(((values == values.round()) & (values >= 0) & (values < 2**packed.bits)).all()):
        return None
    shape = (packed.rows, packed.groups)
    return lambda stored: pack_bits(stored.to(torch.uint8).reshape(shape), packed.bits)


def _dense(g: Builder, packed: Packed, codes: Weight, scales: Weight, zeros: Weight) -> fx.Node:
    """The weight [N, K] in full: its zero points lie between the codes, which no plane can say."""
    shape = (packed.rows, packed.columns)

    def compute(stored: Tensor) -> Tensor:
        ones = torch.ones(packed.rows, packed.groups)
        plane = stored.reshape(packed.rows, -1)
        levels = dequantize(plane, ones, None, packed.bits, packed.columns)
        origin, step = (
            part.load().to(torch.float32).reshape(packed.rows, -1)
            .repeat_interleave(packed.group, 1)[:, : packed.columns]
            for part in (zeros, scales)
        )  # fmt: skip
        return ((levels + 2 ** (packed.bits - 1) - origin) * step).to(scales.dtype)

    name = f"{packed.stem}.dense"
    if name not in g.weights:
        made = codes.map(compute, shape=shape, dtype=scales.dtype, origin=codes.origin)
        g.weights.set(name, made)
    return g.weight(name)


def gather_block_quantized(
    g: Builder,
    data: Value,
    indices: Value,
    scales: Value,
    zero_points: Value = None,
    *,
    bits: int = 4,
    block_size: int = 128,
    gather_axis: int = 0,
    quantize_axis: int = 1,
) -> Value:
    """com.microsoft.GatherBlockQuantized: `effc::quantized_embedding` for rows of a table.

    As with tables that are not packed, indices are taken for ids: negative ones are refused.
    """
    rank = g.rank(data)
    # Rows may lie in blocks, [rows, blocks, bytes]: what is gathered then keeps them apart.
    plain = rank in (2, 3) and gather_axis in (0, -rank) and quantize_axis in (rank - 1, -1)
    if rank == 3:
        plain = plain and _one_scale_per_block(g, data, scales, bits, block_size)
    kind = g.onnx_dtypes[0].name if g.onnx_dtypes and g.onnx_dtypes[0] else "UINT8"
    if not plain or kind not in _TABLES:
        if kind == "UINT8":
            raise Unsupported("packed data that is not a table of rows quantized along them")
        return _gathered(
            g, data, indices, scales, zero_points, gather_axis, quantize_axis, block_size
        )
    table, steps = _constant(g, data, "the table"), _constant(g, scales, "the scales")
    rows, *blocks = table.shape
    stored = math.prod(blocks)
    bits = bits if kind == "UINT8" else 4
    columns = stored * 8 // bits if kind == "UINT8" else stored
    group = columns if block_size >= columns else block_size
    packed = Packed(_stem(g, data), rows, columns, bits, group)
    pack = _TABLES[kind]
    zero: fx.Node | None = None
    if zero_points is not None:
        zero = packed.zeros(g, _constant(g, zero_points, "the zero points"), pack)
    elif kind == "UINT4":
        none = Weight.of(torch.zeros(rows, packed.groups, dtype=torch.uint8), table.origin)
        zero = packed.zeros(g, none, pack)
    planes = packed.codes(g, table, pack), packed.scales(g, steps), zero
    ids = g.call(aten.to.dtype, indices, torch.int64)
    form = bits, group, columns, g.dtype(scales)
    found = g.call(torch.ops.effc.quantized_embedding.default, ids, *planes, *form)
    if rank == 2:
        return found
    return g.call(aten.unflatten.int, found, -1, [blocks[0], columns // blocks[0]])


def _one_scale_per_block(g: Builder, data: Value, scales: Value, bits: int, size: int) -> bool:
    """Whether a table [rows, blocks, bytes] has blocks of the quantizer's own size."""
    shape, steps = g.shape(data), g.shape(scales)
    return shape[-1] == size * bits // 8 and steps == [shape[0], shape[1], 1]


def _gathered(
    g: Builder,
    data: Value,
    indices: Value,
    scales: Value,
    zero_points: Value,
    gather_axis: int,
    quantize_axis: int,
    block_size: int,
) -> Value:
    """Any other form: all of it dequantized, then gathered."""
    from effc.frontend.onnx.ops.microsoft.standard import standard

    block = block_size or g.size(data, quantize_axis)
    whole = dequantize_linear(
        g, data, scales, zero_points, axis=quantize_axis, block_size=block  # type: ignore[arg-type]
    )  # fmt: skip
    return standard("Gather")(g, whole, indices, axis=gather_axis)


def _same(stored: Tensor) -> Tensor:
    return stored


# Element type of a table -> its bytes, packed along rows.
_TABLES: dict[str, Callable[[Tensor], Tensor]] = {
    "UINT8": _same,
    "UINT4": lambda stored: pack_bits(stored.to(torch.uint8), 4),
    "INT4": lambda stored: pack_bits((stored + 8).to(torch.uint8), 4),
}


# What exporters do to a constant to give it another rank.
_RESHAPES = (aten.unsqueeze.default, aten.squeeze.dim, aten.reshape.default, aten.view.default)


def _constant(g: Builder, value: Value, what: str) -> Weight:
    """A constant of the model, not yet read.

    Raises:
        Unsupported: it is computed at run time.
    """
    if isinstance(value, fx.Node) and value.op == "get_attr":
        return g.weights[str(value.target)]
    if isinstance(value, Tensor):
        return Weight.of(value, g.origin_of_weights)
    if isinstance(value, fx.Node) and value.target in _RESHAPES:
        source, *shape = value.args
        weight = _constant(g, source, what)  # type: ignore[arg-type]
        reshape: Any = value.target
        sizes = tuple(int(size) for size in value.meta["val"].shape)
        return weight.map(lambda t: reshape(t, *shape), shape=sizes, origin=weight.origin)
    raise Unsupported(f"{what} of packed weights must be constant")


def _stem(g: Builder, value: Value) -> str:
    """The name that the planes of a packed weight begin with."""
    if isinstance(value, fx.Node):
        return str(value.target)
    path = g.origin.path or "packed"
    taken = [name for name in g.weights if name.startswith(f"{path}.weight") and ".codes" in name]
    return f"{path}.weight" if not taken else f"{path}.weight_{len(taken)}"
