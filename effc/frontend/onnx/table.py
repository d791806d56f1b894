"""Which ONNX operators have a translation, and what a translation is.

A translation is a function of the builder, the operator's inputs in order (None for what is
absent) and its attributes by their ONNX names; it returns one value, or a tuple of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import Any

from effc.frontend.onnx.values import Value

Translation = Callable[..., "Value | tuple[Value, ...]"]

MICROSOFT = "com.microsoft"

# Domain -> the files with its operators. The names "" and "ai.onnx" are one domain.
FAMILIES: dict[str, tuple[str, ...]] = {
    "": (
        "activation",
        "attention",
        "casting",
        "control_flow",
        "convolution",
        "creation",
        "elementwise",
        "indexing",
        "linear_algebra",
        "logic",
        "microsoft.standard_domain",
        "normalization",
        "ordering",
        "pooling",
        "quantization",
        "recurrent",
        "reductions",
        "resize",
        "sequences",
        "shapes",
        "signal",
        "slicing",
        "vision",
    ),
    MICROSOFT: ("microsoft",),
}


def op(target: Any, **fixed: Any) -> Translation:
    """The translation of an operator that is one call of `target` on its inputs.

    Args:
        target: an operator overload such as `aten.add.Tensor`.
        fixed: keyword arguments that never change.
    """

    def translate(g: Any, *inputs: Value, **attributes: Any) -> Value:
        return g.call(target, *inputs, **fixed, **attributes)

    return translate


@cache
def translations(domain: str) -> Mapping[str, Translation]:
    """Operator -> translation, for one domain.

    Raises:
        RuntimeError: two families translate one operator.
    """
    table: dict[str, Translation] = {}
    for family in FAMILIES.get(plain_domain(domain), ()):
        module = import_module(f"effc.frontend.onnx.ops.{family}")
        twice = table.keys() & module.TABLE.keys()
        if twice:
            raise RuntimeError(f"{family} translates {sorted(twice)}, as another family does")
        table.update(module.TABLE)
    return table


def find(domain: str, op_type: str) -> Translation | None:
    """The translation of an operator, None if it has none of its own."""
    return translations(domain).get(op_type)


def support(domain: str, op_type: str, version: int) -> str:
    """How an operator is served: "direct", "function" (through its body) or "unsupported"."""
    from effc.frontend.onnx.functions import has_body

    if find(domain, op_type) is not None:
        return "direct"
    return "function" if has_body(plain_domain(domain), op_type, version) else "unsupported"


def plain_domain(domain: str) -> str:
    """The domain of the standard operators has two names."""
    return "" if domain == "ai.onnx" else domain
