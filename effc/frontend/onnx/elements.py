"""Element types, and initializers as weights."""

from __future__ import annotations

import numpy as np
import onnx_ir
import torch

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.values import Unsupported, Value
from effc.ir.weights import Weight

_DTYPES: dict[onnx_ir.DataType, torch.dtype] = {
    onnx_ir.DataType.FLOAT: torch.float32,
    onnx_ir.DataType.DOUBLE: torch.float64,
    onnx_ir.DataType.FLOAT16: torch.float16,
    onnx_ir.DataType.BFLOAT16: torch.bfloat16,
    onnx_ir.DataType.FLOAT8E4M3FN: torch.float8_e4m3fn,
    onnx_ir.DataType.FLOAT8E4M3FNUZ: torch.float8_e4m3fnuz,
    onnx_ir.DataType.FLOAT8E5M2: torch.float8_e5m2,
    onnx_ir.DataType.FLOAT8E5M2FNUZ: torch.float8_e5m2fnuz,
    onnx_ir.DataType.INT8: torch.int8,
    onnx_ir.DataType.INT16: torch.int16,
    onnx_ir.DataType.INT32: torch.int32,
    onnx_ir.DataType.INT64: torch.int64,
    onnx_ir.DataType.UINT8: torch.uint8,
    onnx_ir.DataType.UINT16: torch.uint16,
    onnx_ir.DataType.UINT32: torch.uint32,
    onnx_ir.DataType.UINT64: torch.uint64,
    onnx_ir.DataType.BOOL: torch.bool,
    onnx_ir.DataType.COMPLEX64: torch.complex64,
    onnx_ir.DataType.COMPLEX128: torch.complex128,
}
_ELEMENT_TYPES = {dtype: kind.value for kind, dtype in _DTYPES.items()}

# Types that torch lacks, and the one that carries their values in a program.
CARRIERS: dict[str, torch.dtype] = {
    "INT4": torch.int8,
    "INT2": torch.int8,
    "UINT4": torch.uint8,
    "UINT2": torch.uint8,
    "FLOAT4E2M1": torch.float32,
    "FLOAT8E8M0": torch.float32,
}

# Integers up to this many are known while translating: shapes, axes, indices, permutations.
KNOWN_INTEGERS = 4096


def torch_dtype(kind: onnx_ir.DataType) -> torch.dtype:
    """The element type that carries an ONNX type in a program.

    Raises:
        Unsupported: there is none (strings).
    """
    found = _DTYPES.get(kind) or CARRIERS.get(kind.name)
    if found is None:
        raise Unsupported(f"elements of type {kind.name} cannot be computed with")
    return found


def element_type(dtype: torch.dtype) -> int:
    """The number of a torch element type in the ONNX format."""
    return _ELEMENT_TYPES[dtype]


def to_torch(tensor: onnx_ir.TensorProtocol) -> torch.Tensor:
    """The values of an ONNX tensor; shares memory with the file where torch has the type.

    Raises:
        Unsupported: torch has no such elements.
    """
    dtype = torch_dtype(tensor.dtype)
    array = tensor.numpy()
    if tensor.dtype.name in CARRIERS:
        return torch.from_numpy(array.astype(np.float32)).to(dtype)
    if dtype.is_floating_point and dtype.itemsize < 4 and dtype != torch.float16:
        bits = np.int16 if dtype.itemsize == 2 else np.uint8
        return _shared(array.view(bits)).view(dtype)
    return _shared(array)


def _shared(array: np.ndarray) -> torch.Tensor:
    if not array.flags.writeable:
        # Nothing writes to weights; torch warns about read-only memory all the same.
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return torch.from_numpy(np.asarray(array, order="C"))
    return torch.from_numpy(np.asarray(array, order="C"))


def initializer(g: Builder, value: onnx_ir.Value) -> Value:
    """An initializer: known when it is small enough to be a shape or a number, else a weight."""
    tensor = value.const_value
    assert tensor is not None, "the reader refuses initializers without data"
    return known_or_weight(g, tensor, str(value.name))


def known_or_weight(g: Builder, tensor: onnx_ir.TensorProtocol, name: str) -> Value:
    """A constant of the model as a tensor that is known now, or as a weight read lazily."""
    dtype = torch_dtype(tensor.dtype)
    integer = not dtype.is_floating_point and not dtype.is_complex
    if tensor.size <= (KNOWN_INTEGERS if integer else 1):
        return to_torch(tensor).clone()
    if name not in g.weights:
        shape = tuple(int(size) for size in tensor.shape.numpy())
        origin = g.origin_of_weights
        g.weights.set(name, Weight(shape, dtype, lambda: to_torch(tensor), origin))
    return g.weight(name)
