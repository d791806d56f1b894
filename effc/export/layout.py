"""Where the tensors lie in a safetensors file.

The layout follows from shapes and types alone. Tensors lie by falling element size, which aligns
every one of them without the gaps that the format forbids.

Format: https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from effc.diagnostics import InternalError
from effc.ir.weights import Weights

DTYPE_NAMES: dict[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}

_ALIGNMENT = 64


@dataclass(frozen=True)
class Layout:
    """Where everything lies in a weights file.

    Attributes:
        header: the bytes in front of the tensors.
        offsets: name -> first byte of the tensor in the file.
        size: bytes of the whole file.
    """

    header: bytes
    offsets: Mapping[str, int]
    size: int


def layout_of(weights: Weights) -> Layout:
    """The layout that the shapes and types of a table ask for."""
    offset = 0
    begins: dict[str, int] = {}
    for name in sorted(weights, key=lambda name: (-weights[name].dtype.itemsize, name)):
        begins[name] = offset
        offset += weights[name].nbytes
    header = _header(weights, begins)
    offsets = {name: len(header) + begin for name, begin in begins.items()}
    return Layout(header, offsets, len(header) + offset)


def _header(weights: Weights, begins: Mapping[str, int]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    for name, begin in begins.items():
        weight = weights[name]
        if weight.dtype not in DTYPE_NAMES:
            raise InternalError("E0901", f"{weight.dtype} has no place in safetensors", where=name)
        entries[name] = {
            "dtype": DTYPE_NAMES[weight.dtype],
            "shape": list(weight.shape),
            "data_offsets": [begin, begin + weight.nbytes],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
