"""Operators that mean what a standard one means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from effc.frontend.onnx import table
from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.values import Unsupported, Value


def standard(op_type: str, opset: int = 21) -> Callable[..., Any]:
    """The translation of a standard operator, for use by one of another domain.

    Args:
        op_type: the operator.
        opset: the version that it is read as.
    """

    def translate(g: Builder, *inputs: Value, **attributes: Any) -> Any:
        translation = table.find("", op_type)
        if translation is None:
            raise Unsupported(f"there is no translation for {op_type}")
        before, g.opset = g.opset, opset
        try:
            return translation(g, *inputs, **attributes)
        finally:
            g.opset = before

    return translate
