"""Reading a dequantized matrix: which integers, scales and zero points it is made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from effc.ir.pattern import op_name
from effc.ir.program import Program
from effc.ir.weights import Weight
from effc.kernels.packing.bits import pack_bits
from effc.kernels.packing.group_affine import BITS, MIN_GROUP, SCALES, GroupAffine

_CAST = "aten.to.dtype"
_DIFFERENCES = ("aten.sub.Tensor", "aten.sub.Scalar")

# A node whose value depends on weights alone, or a number.
Part = fx.Node | float


@dataclass(frozen=True)
class Dequantized:
    """(levels - zero) * scale.

    Attributes:
        levels: the read of the stored integers, a matrix.
        scale, zero: in a shape that broadcasts with the matrix, or [groups, out] / [out, groups]
            where `group` is set; zero is 0 without zero points.
        inputs: which dimension of the matrix is `in`.
        group: inputs that share a scale; None when all of a row do.
    """

    levels: fx.Node
    scale: Part
    zero: Part
    inputs: int
    group: int | None


class _Unfit(Exception):
    """Why a matrix cannot be packed."""


def read_dequantized(scaled: fx.Node, inputs: int) -> Dequantized | str:
    """The parts of a product `(levels - zero) * scale`, or why it is none that can be packed."""
    try:
        return _read(scaled, inputs)
    except _Unfit as reason:
        return str(reason)


def _read(scaled: fx.Node, inputs: int) -> Dequantized:
    value = scaled.meta["val"]
    if value.dim() != 2 or value.dtype != torch.float32:
        raise _Unfit(f"{scaled.name} is no matrix of float32")
    levels, stored_zero = _centered(scaled.args[0])
    dtype = levels.meta["val"].dtype
    if levels.op != "get_attr" or dtype not in (torch.int8, torch.uint8):
        raise _Unfit(f"{scaled.name} scales no 8-bit integers of the state")
    scale, group = _part(scaled.args[1], value.shape, inputs)
    zero, zero_group = _part(stored_zero, value.shape, inputs)
    if zero_group not in (None, group):
        raise _Unfit("scales and zero points have different groups")
    if isinstance(scale, fx.Node) and scale.meta["val"].dtype not in SCALES:
        raise _Unfit(f"{scale.name} has scales of {scale.meta['val'].dtype}")
    if not _is_level(zero, dtype):
        raise _Unfit(f"the zero point {zero} is no {dtype}")
    return Dequantized(levels, scale, zero, inputs, group)


def _is_level(zero: Part, dtype: torch.dtype) -> bool:
    """Whether a zero point is an integer of the type of the levels."""
    if isinstance(zero, fx.Node):
        return zero.meta["val"].dtype == dtype
    limits = torch.iinfo(dtype)
    return zero == round(zero) and limits.min <= zero <= limits.max


def _centered(node: Any) -> tuple[fx.Node, Any]:
    """What is widened, and what is taken away from it."""
    zero: Any = 0.0
    if op_name(node) in _DIFFERENCES:
        node, zero = node.args[:2]
    return node.args[0], zero


def _part(part: Any, shape: torch.Size, inputs: int) -> tuple[Part, int | None]:
    """Scales or zero points, and the inputs that share one; None when all of a row do."""
    if not isinstance(part, fx.Node):
        return float(part), None
    part = _uncast(part)
    if not _is_constant(part):
        raise _Unfit(f"{part.name} is computed at run time")
    repeated = _uncast(part.args[0]) if op_name(part) == "aten.slice.Tensor" else part
    if op_name(repeated) == "aten.repeat_interleave.self_int":
        return _blocks(repeated, inputs, shape[inputs])
    sizes = [1] * (2 - part.meta["val"].dim()) + list(part.meta["val"].shape)
    if sizes[inputs] != 1:
        raise _Unfit(f"{part.name} has a value for every input")
    return part, None


def _blocks(repeated: fx.Node, inputs: int, columns: int) -> tuple[Part, int | None]:
    arguments: tuple[Any, ...] = repeated.args[:3]
    source, block, axis = _uncast(arguments[0]), *arguments[1:]
    if not isinstance(block, int) or not isinstance(axis, int) or axis % 2 != inputs:
        raise _Unfit(f"{source.name} has blocks across the outputs")
    if block >= columns:
        return source, None
    if block < MIN_GROUP or block & (block - 1):
        allowed = f"the packed layout has powers of two from {MIN_GROUP} on"
        raise _Unfit(f"a block of {block} inputs; {allowed}")
    return source, block


def _uncast(node: Any) -> fx.Node:
    while op_name(node) == _CAST:
        node = node.args[0]
    return node


def _is_constant(node: fx.Node) -> bool:
    if node.op == "call_function":
        return bool(node.all_input_nodes) and all(map(_is_constant, node.all_input_nodes))
    return node.op == "get_attr"


def _computed(program: Program, node: fx.Node) -> Callable[[], Tensor]:
    """What a node of weights alone evaluates to."""
    if node.op == "get_attr":
        return program.weights[str(node.target)].load
    target: Any = node.target
    sources = {n: _computed(program, n) for n in node.all_input_nodes}

    def compute() -> Tensor:
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: sources[n]())
        with torch.no_grad():
            return target(*args, **kwargs)

    return compute


@dataclass(frozen=True)
class PackedForm:
    """A dequantized matrix in the packed layout.

    Attributes:
        stem: beginning of the names of the planes.
        planes: codes, scale and, unless symmetric, zero.
        bits, group, columns: as the packed operators take them.
    """

    stem: str
    planes: dict[str, Weight]
    bits: int
    group: int
    columns: int

    @staticmethod
    def of(program: Program, found: Dequantized) -> PackedForm:
        """Choose the fewest bits that hold the codes, and describe the planes; reads the codes."""
        stored = program.weights[str(found.levels.target)]
        turned = found.inputs == 0
        rows, columns = stored.shape[::-1] if turned else stored.shape
        groups = 1 if found.group is None else math.ceil(columns / found.group)
        zero = _table(_values(program, found.zero)(), turned, rows, groups)
        bits, lift = _width(stored, zero)
        scales = _scale_type(found.scale)
        symmetric = bool((zero + lift == 2 ** (bits - 1)).all())
        layout = GroupAffine(bits, found.group, symmetric, scales)
        specs = layout.plane_specs((rows, columns))

        def codes(levels: Tensor) -> Tensor:
            lifted = (levels.t() if turned else levels).to(torch.int16) + lift
            missing = layout.columns(columns) - columns
            return pack_bits(F.pad(lifted.to(torch.uint8), (0, missing)), bits)

        def scale() -> Tensor:
            table = _table(_values(program, found.scale)(), turned, rows, groups)
            return table.to(scales).contiguous()

        loads = {"codes": lambda: codes(stored.load()), "scale": scale}
        if not symmetric:
            loads["zero"] = lambda: pack_bits((zero + lift).to(torch.uint8), bits)
        planes = {p: Weight(*specs[p], loads[p], stored.origin) for p in loads}
        stem = f"{found.levels.target}/t" if turned else str(found.levels.target)
        return PackedForm(stem, planes, bits, found.group or columns, columns)


def _values(program: Program, part: Part) -> Callable[[], Tensor]:
    if isinstance(part, fx.Node):
        return _computed(program, part)
    return lambda: torch.tensor(float(part))


def _table(values: Tensor, turned: bool, rows: int, groups: int) -> Tensor:
    """Values of whatever shape as [out, groups]."""
    values = values.reshape([1] * (2 - values.dim()) + list(values.shape))
    return (values.t() if turned else values).expand(rows, groups)


def _scale_type(scale: Part) -> torch.dtype:
    return scale.meta["val"].dtype if isinstance(scale, fx.Node) else torch.float32


def _width(stored: Weight, zero: Tensor) -> tuple[int, int]:
    """The fewest bits that hold levels and zero points, and what makes codes of them."""
    levels = stored.load()
    low = min(int(levels.min()), int(zero.min()))
    high = max(int(levels.max()), int(zero.max()))
    signed = stored.dtype == torch.int8
    for bits in sorted(BITS):
        lift = 2 ** (bits - 1) if signed else 0
        if low + lift >= 0 and high + lift < 2**bits:
            return bits, lift
    raise AssertionError("integers of 8 bits fit into 8 bits")
