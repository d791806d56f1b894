"""Models written as text, and what effc makes of them."""

from __future__ import annotations

from typing import Any

import onnx
import torch

import effc
from effc.importing import ImportedProgram


def parsed(body: str, opset: int = 21) -> onnx.ModelProto:
    """A model from the text of its graph, in ONNX's own notation."""
    header = f'<ir_version: 10, opset_import: ["": {opset}]>'
    return onnx.parser.parse_model(header + body)


def imported(body: str, opset: int = 21) -> ImportedProgram:
    """A text as a program."""
    return effc.import_onnx(parsed(body, opset))


def targets(program: ImportedProgram) -> list[str]:
    """What the calls of "forward" call, in order."""
    nodes = program.stages["forward"].graph.nodes
    return [str(node.target) for node in nodes if node.op == "call_function"]


def same(found: Any, wanted: Any) -> bool:
    """Equal bits, in lists of equal length; NaN equals NaN."""
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    return found.dtype == wanted.dtype and torch.equal(
        torch.nan_to_num(found.double(), 1e300), torch.nan_to_num(wanted.double(), 1e300)
    )
