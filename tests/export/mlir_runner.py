"""Runs what `effc export --to mlir --dialect linalg` writes, on MLIR's own compiler."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor
from torch_mlir import ir
from torch_mlir.dialects import torch as torch_dialect
from torch_mlir.execution_engine import ExecutionEngine
from torch_mlir.passmanager import PassManager

# Linalg on tensors -> buffers -> loops -> LLVM.
PIPELINE = """builtin.module(
    func.func(refback-generalize-tensor-pad, refback-generalize-tensor-concat),
    func.func(tm-tensor-bufferize),
    one-shot-bufferize{copy-before-write bufferize-function-boundaries
        function-boundary-type-conversion=identity-layout-map},
    refback-mlprogram-bufferize,
    func.func(tm-tensor-to-loops, refback-munge-memref-copy, convert-linalg-to-loops),
    func.func(lower-affine), convert-scf-to-cf,
    func.func(refback-expand-ops-for-llvm, arith-expand, convert-math-to-llvm),
    convert-math-to-libm, expand-strided-metadata, lower-affine, finalize-memref-to-llvm,
    func.func(llvm-request-c-wrappers), convert-arith-to-llvm, convert-func-to-llvm,
    convert-cf-to-llvm, reconcile-unrealized-casts)"""

# The dialect of scatters has no Python module; a pass that makes it brings it along.
_LOADS_TM_TENSOR = "builtin.module(func.func(convert-torch-to-tmtensor))"


def parse(text: str) -> ir.Module:
    """Read a module in any dialect that the exporter writes."""
    context = ir.Context()
    torch_dialect.register_dialect(context)
    with context:
        PassManager.parse(_LOADS_TM_TENSOR).run(ir.Module.parse("module {}").operation)
        return ir.Module.parse(text)


class Function:
    """One function of a linalg module, compiled for this machine.

    Args:
        text: the module.
        name: of the function.
        results: type and rank of each result.
    """

    def __init__(self, text: str, name: str, results: Sequence[tuple[torch.dtype, int]]) -> None:
        module = parse(text)
        with module.context:
            PassManager.parse(PIPELINE).run(module.operation)
            self._engine = ExecutionEngine(module, 0)
        self._name = name
        self._types = [(dtype, rank) for dtype, rank in results]

    def __call__(self, *arguments: Tensor) -> list[Tensor]:
        """Run it; results are copies."""
        result = _record([_descriptor(rank) for _, rank in self._types])()
        inputs = [_describe(a.contiguous()) for a in arguments]
        pointers = [ctypes.pointer(ctypes.pointer(d)) for d in (result, *inputs)]
        self._engine.invoke(self._name, *pointers)
        return [_read(getattr(result, f"f{i}"), dtype) for i, (dtype, _) in enumerate(self._types)]


def _descriptor(rank: int) -> type[ctypes.Structure]:
    """MLIR's ranked memref."""

    class Descriptor(ctypes.Structure):
        _fields_ = [
            ("allocated", ctypes.c_void_p),
            ("aligned", ctypes.c_void_p),
            ("offset", ctypes.c_longlong),
            ("shape", ctypes.c_longlong * rank),
            ("strides", ctypes.c_longlong * rank),
        ]

    return Descriptor


def _record(fields: Sequence[type[ctypes.Structure]]) -> type[ctypes.Structure]:
    """Several results are one structure of descriptors."""

    class Record(ctypes.Structure):
        _fields_ = [(f"f{i}", field) for i, field in enumerate(fields)]

    return Record


def _describe(tensor: Tensor) -> ctypes.Structure:
    made = _descriptor(tensor.dim())()
    made.allocated = made.aligned = tensor.data_ptr()
    made.offset = 0
    made.shape[:] = list(tensor.shape)
    made.strides[:] = list(tensor.stride())
    made.owner = tensor  # type: ignore[attr-defined]
    return made


def _read(memref: ctypes.Structure, dtype: torch.dtype) -> Tensor:
    shape = tuple(memref.shape)
    count = 1
    for size in shape:
        count *= size
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    start = memref.aligned + memref.offset * dtype.itemsize
    raw = (ctypes.c_char * (count * dtype.itemsize)).from_address(start)
    strided = torch.frombuffer(bytearray(raw), dtype=dtype)
    return strided.as_strided(shape, tuple(memref.strides)).clone()
