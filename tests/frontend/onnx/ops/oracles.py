"""ONNX Runtime as the judge of models in ONNX's text syntax, at several sizes of their inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tests.frontend.onnx.ops.runtime import theirs
from tests.frontend.onnx.ops.texts import model, program, run


def attributes(values: Mapping[str, Any]) -> str:
    """Attributes as text; those that are None are left out."""
    parts = [f"{name} = {_text(value)}" for name, value in values.items() if value is not None]
    return f"<{', '.join(parts)}>" if parts else ""


def _text(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    return str(value)


def agree(
    text: str,
    *samples: Sequence[np.ndarray],
    opset: int = 21,
    rtol: float = 2e-5,
    atol: float = 2e-6,
) -> None:
    """Fail unless one import of the model computes what ONNX Runtime does, for every sample.

    The tolerances are those of float32 sums in another order.
    """
    ours, proto = program(text, opset), model(text, opset)
    names = [value.name for value in proto.graph.input]
    for arrays in samples:
        found = run(ours, *arrays)
        expected = theirs(proto, dict(zip(names, arrays, strict=True)))
        for mine, other in zip(found, expected, strict=True):
            assert (mine.dtype, mine.shape) == (other.dtype, other.shape)
            np.testing.assert_allclose(mine, other, rtol=rtol, atol=atol)
