"""Models written in ONNX's text syntax: what effc computes, and what the standard says."""

from __future__ import annotations

import re
import string
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir
import torch
from onnx.reference import ReferenceEvaluator

import effc.ops  # noqa: F401
from effc.frontend.onnx.importer import import_model
from effc.ir.printer import print_stage
from effc.ir.program import Program
from effc.ir.verify import verify
from effc.runtime.executable import Executable


def model(text: str, opset: int = 21) -> onnx.ModelProto:
    """A model from "name (inputs) => (outputs) { nodes }"."""
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> {text}')


def program(text: str, opset: int = 21) -> Program:
    """The imported program, verified."""
    found = import_model(onnx_ir.from_proto(model(text, opset)), "test")
    verify(found)
    return found


def calls(text: str, opset: int = 21) -> list[str]:
    """The statements of the program without types; values are named a, b, c, ... in order."""
    lines = print_stage(program(text, opset).stages["forward"], comments=False).splitlines()
    found = "\n".join(line.strip().replace("torch.ops.", "") for line in lines[1:])
    names = re.findall(r"^(\w+) = ", found, re.MULTILINE)
    for name, letter in zip(names, string.ascii_lowercase, strict=False):
        found = re.sub(rf"(?<![\w.]){name}(?![\w.])", letter, found)
    return found.splitlines()


def run(source: str | Program, *arrays: np.ndarray, opset: int = 21) -> list[np.ndarray]:
    """The outputs of the imported program."""
    found = source if isinstance(source, Program) else program(source, opset)
    names = [spec.name for spec in found.stages["forward"].inputs]
    given = [torch.from_numpy(np.array(array)) for array in arrays]
    stage = Executable(found, device="cpu", kernels="reference")
    results = stage("forward", dict(zip(names, given, strict=True)))
    return [result.numpy() for result in results.values()]


def standard(text: str, *arrays: np.ndarray, opset: int = 21) -> list[Any]:
    """The outputs of the reference implementation of the standard."""
    proto = model(text, opset)
    names = [value.name for value in proto.graph.input]
    return ReferenceEvaluator(proto).run(None, dict(zip(names, arrays, strict=True)))


def same(found: list[np.ndarray], expected: list[Any], rtol: float = 0.0) -> None:
    """Fail unless shapes, element types and values are the same."""
    assert len(found) == len(expected)
    for ours, theirs in zip(found, map(np.asarray, expected), strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=0.0)


def agree(text: str, *arrays: np.ndarray, opset: int = 21, rtol: float = 0.0) -> None:
    """Fail unless the program computes what the standard says."""
    same(run(text, *arrays, opset=opset), standard(text, *arrays, opset=opset), rtol)


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    """float32 numbers around 0."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
