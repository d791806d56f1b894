"""What callers pass to an imported program, and what they get back.

Inside a program everything is a torch tensor. Outside, element types that torch lacks are numpy
arrays (with the types of ml_dtypes), sequences are lists, and absent optionals are None.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import ml_dtypes
import numpy as np
import onnx_ir
import torch

from effc.diagnostics import GenerationError, ModelError
from effc.frontend.onnx.elements import CARRIERS, torch_dtype
from effc.frontend.onnx.values import Unsupported

# Element types that torch lacks, or cannot compute with, as arrays.
_FOREIGN: dict[str, Any] = {
    "INT4": ml_dtypes.int4,
    "INT2": ml_dtypes.int2,
    "UINT4": ml_dtypes.uint4,
    "UINT2": ml_dtypes.uint2,
    "FLOAT4E2M1": ml_dtypes.float4_e2m1fn,
    "FLOAT8E8M0": ml_dtypes.float8_e8m0fnu,
}

# Arrays of ml_dtypes whose elements torch has, and the integer type of the same width.
_SHARED: dict[Any, tuple[torch.dtype, Any]] = {
    np.dtype(ml_dtypes.bfloat16): (torch.bfloat16, np.int16),
    np.dtype(ml_dtypes.float8_e4m3fn): (torch.float8_e4m3fn, np.uint8),
    np.dtype(ml_dtypes.float8_e4m3fnuz): (torch.float8_e4m3fnuz, np.uint8),
    np.dtype(ml_dtypes.float8_e5m2): (torch.float8_e5m2, np.uint8),
    np.dtype(ml_dtypes.float8_e5m2fnuz): (torch.float8_e5m2fnuz, np.uint8),
}


@dataclass(frozen=True)
class Port:
    """An input or output as the ONNX file declares it.

    Attributes:
        name: its ONNX name.
        element: name of the ONNX element type, e.g. "FLOAT" or "INT4".
        shape: of the tensor, or of a sequence's elements; None when it is open, and so is a size.
        sequence: a list of such tensors.
        optional: may be None.
    """

    name: str
    element: str
    shape: tuple[int | str | None, ...] | None = None
    sequence: bool = False
    optional: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """The element type inside the program."""
        return torch_dtype(onnx_ir.DataType[self.element])

    @property
    def element_name(self) -> str:
        """The element type as callers know it, e.g. "float32"."""
        foreign = _FOREIGN.get(self.element)
        return str(self.dtype).removeprefix("torch.") if foreign is None else foreign.__name__


def port(value: onnx_ir.Value) -> Port:
    """The port that a graph's input or output is.

    Raises:
        ModelError: E0307 for elements that no program computes with, such as strings, and for
            nested sequences.
    """
    kind, sequence, optional = value.type, False, False
    if isinstance(kind, onnx_ir.OptionalType):
        kind, optional = kind.elem_type, True
    if isinstance(kind, onnx_ir.SequenceType):
        kind, sequence = kind.elem_type, True
    where = f"input or output {value.name}"
    if not isinstance(kind, onnx_ir.TensorType):
        raise ModelError("E0307", f"values of type {value.type} are not supported", where=where)
    try:
        torch_dtype(kind.dtype)
    except Unsupported as reason:
        raise ModelError("E0307", f"{reason}", where=where) from None
    shape = None if value.shape is None else tuple(map(_size, value.shape))
    return Port(str(value.name), kind.dtype.name, shape, sequence, optional)


def _size(size: int | onnx_ir.SymbolicDim) -> int | str | None:
    return size if isinstance(size, int) else size.value


def enter(ports: Iterable[Port], values: Iterable[Any]) -> list[Any]:
    """A caller's values as the program takes them.

    Args:
        ports: the inputs, in order.
        values: one per input.

    Raises:
        GenerationError: E0703 when number, kind, element type or shape do not fit.
    """
    ports, values = list(ports), list(values)
    if len(ports) != len(values):
        names = ", ".join(port.name for port in ports)
        raise GenerationError(
            "E0703",
            f"the program takes {len(ports)} inputs ({names}), found {len(values)}",
            help="pass them in this order; None for optional inputs that are absent",
        )
    sizes: dict[str, tuple[int, str]] = {}
    return [_enter(port, value, sizes) for port, value in zip(ports, values, strict=True)]


def _enter(port: Port, value: Any, sizes: dict[str, tuple[int, str]]) -> Any:
    if value is None and port.optional:
        return None
    if not port.sequence:
        return _tensor(port, value, sizes)
    if not isinstance(value, list | tuple):
        _refuse(port, f"a list of {port.element_name} tensors", value)
    return [_tensor(port, item, {}) for item in value]


def _tensor(port: Port, value: Any, sizes: dict[str, tuple[int, str]]) -> torch.Tensor:
    found = _from_numpy(port, value) if isinstance(value, np.ndarray | np.generic) else value
    if port.element == "FLOAT8E8M0" and getattr(found, "dtype", None) == torch.float8_e8m0fnu:
        found = found.to(torch.float32)
    elif port.element in CARRIERS and found is value:
        _refuse(port, f"a numpy array of {port.element_name}", value)
    if not isinstance(found, torch.Tensor) or found.dtype != port.dtype:
        _refuse(port, f"a {port.element_name} tensor", value)
    if not _fits(port.shape, found.shape, sizes, port.name):
        _refuse(port, f"{port.element_name} {_shape_text(port.shape, sizes)}", value)
    return found


def _from_numpy(port: Port, value: np.ndarray | np.generic) -> Any:
    array = np.asarray(value)
    if port.element in CARRIERS:
        foreign = array.dtype == np.dtype(_FOREIGN[port.element])
        return torch.from_numpy(array.astype(np.float32)).to(port.dtype) if foreign else None
    if array.dtype in _SHARED:
        dtype, bits = _SHARED[array.dtype]
        return torch.from_numpy(array.view(bits).copy()).view(dtype)
    return torch.from_numpy(array.copy()) if array.dtype.kind in "biufc" else None


def _fits(
    declared: tuple[int | str | None, ...] | None,
    shape: tuple[int, ...],
    sizes: dict[str, tuple[int, str]],
    name: str,
) -> bool:
    """Whether a shape is as declared, where one name means one size among all inputs."""
    if declared is None:
        return True
    if len(declared) != len(shape):
        return False
    for expected, size in zip(declared, shape, strict=True):
        if isinstance(expected, str):
            expected = sizes.setdefault(expected, (size, name))[0]
        if expected is not None and expected != size:
            return False
    return True


def _shape_text(declared: Any, sizes: Mapping[str, tuple[int, str]]) -> str:
    shape = ", ".join("?" if size is None else str(size) for size in declared)
    known = [f"{s} = {sizes[s][0]} as in {sizes[s][1]}" for s in declared if s in sizes]
    return f"[{shape}]" + (f" with {', '.join(known)}" if known else "")


def _refuse(port: Port, expected: str, value: Any) -> NoReturn:
    if isinstance(value, torch.Tensor | np.ndarray):
        dtype = str(value.dtype).removeprefix("torch.")
        found = f"{dtype} {list(value.shape)}"
    else:
        found = "nothing" if value is None else f"a {type(value).__name__}"
    raise GenerationError(
        "E0703", f"{expected} is expected, found {found}", where=f"input {port.name}"
    )


def leave(port: Port, value: Any) -> Any:
    """A result of the program as callers get it."""
    if isinstance(value, list | tuple):
        return [leave(port, item) for item in value]
    if isinstance(value, torch.Tensor) and port.element in CARRIERS:
        return value.to(torch.float32).numpy().astype(_FOREIGN[port.element])
    return value
