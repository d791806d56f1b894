"""What a translation to ONNX works with: `kernels/<op>/onnx.py` has one function per operator.

    def translate(g, x, weight, *, eps, round_first):
        return g.op("RMSNormalization", x, weight, epsilon=eps)

Tensors of the operator's schema arrive as ONNX values in their order, None for an absent one, all
other arguments by keyword. Operators without a file here are exported through their decomposition
into `aten` (`effc.export.decompositions`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

# An `onnx_ir.Value`; kernels do not depend on onnx.
Value = Any


class OnnxGraph(Protocol):
    """The ONNX graph being built, at the place of the operator that is translated.

    Attributes:
        opset: version of the standard operators, 18 or later.
        contrib: whether operators of com.microsoft may be used.
    """

    opset: int
    contrib: bool

    def op(
        self, op_type: str, *inputs: Value | None, outputs: int = 1, domain: str = "", **attrs: Any
    ) -> Any:
        """Add an operator; its result, or a tuple of `outputs` of them."""
        ...

    def ints(self, *values: int) -> Value:
        """A constant int64 vector."""
        ...

    def index(self, value: int) -> Value:
        """A constant int64 without dimensions."""
        ...

    def octets(self, *values: int) -> Value:
        """A constant uint8 vector."""
        ...

    def scalar(self, value: float, like: Value | torch.dtype) -> Value:
        """A constant of an element type, or that of `like`, without dimensions."""
        ...

    def cast(self, x: Value, dtype: torch.dtype) -> Value:
        """`x` in another element type, or `x` itself."""
        ...

    def dtype(self, x: Value) -> torch.dtype:
        """Element type."""
        ...

    def shape(self, x: Value) -> list[int | str]:
        """Sizes; the names of those that vary."""
        ...

    def weight(self, x: Value) -> torch.Tensor | None:
        """The values of a constant, None if it is computed."""
        ...

    def stored(
        self,
        source: Value,
        form: str,
        make: Callable[[], torch.Tensor],
        shape: Sequence[int],
        dtype: str,
    ) -> Value:
        """A constant made from another one when the file is written.

        Args:
            source: the constant it is made from.
            form: added to the name; the same source and form give the same constant.
            make: gives the values, for elements below 8 bits as packed uint8.
            shape: of the constant, in elements.
            dtype: ONNX element type, e.g. "INT4".
        """
        ...

    def note(self, text: str) -> None:
        """Tell the user; the same text is told once."""
        ...
