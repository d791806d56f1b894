"""Operators on their way through torch's exporter.

`torch.onnx.export` translates `aten`. What we translate ourselves passes through as a node of the
domain "effc", with the tensors of the operator's schema as inputs and all else as attributes;
`effc.export.onnx.lowering` then replaces it, with the weights at hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

DOMAIN = "effc"

_ATTRIBUTES = {
    "int": "INT",
    "SymInt": "INT",
    "bool": "INT",
    "ScalarType": "INT",
    "float": "FLOAT",
    "str": "STRING",
}

_ELEMENTS = ("float", "float16", "bfloat16", "double", "int64", "int32", "int8", "uint8", "bool")


def placeholder(op: torch._ops.OpOverload, name: str) -> Callable[..., Any]:
    """An entry of `custom_translation_table` that keeps an operator, as a node `effc::name`."""
    from onnxscript.values import Op, Opset

    opset = Opset(DOMAIN, 1)
    made = Op(opset, name, _schema(op, name))
    names = [argument.name for argument in op._schema.arguments]
    tensors = {a.name for a in op._schema.arguments if "Tensor" in str(a.type)}

    def translate(*args: Any, **kwargs: Any) -> Any:
        given = dict(zip(names, args, strict=False)) | kwargs
        inputs = [given.get(n) for n in names if n in tensors]
        while inputs and inputs[-1] is None:
            inputs.pop()
        attributes = {
            n: int(v) if isinstance(v, bool) else v
            for n, v in given.items()
            if n not in tensors and v is not None
        }
        return made(*inputs, **attributes)

    return translate


def _schema(op: torch._ops.OpOverload, name: str) -> Any:
    """The ONNX schema of an operator: every tensor may have a type of its own."""
    from onnx.defs import OpSchema

    parameters, attributes, types = [], [], []

    def parameter(label: str, option: Any) -> Any:
        types.append((f"T_{label}", [f"tensor({name})" for name in _ELEMENTS], ""))
        return OpSchema.FormalParameter(label, f"T_{label}", param_option=option)

    for argument in op._schema.arguments:
        kind = str(argument.type)
        if "Tensor" in kind:
            optional = kind.startswith("Optional")
            option = OpSchema.FormalParameterOption
            parameters.append(
                parameter(argument.name, option.Optional if optional else option.Single)
            )
        else:
            plain = kind.removeprefix("Optional[").removesuffix("]")
            attribute = getattr(OpSchema.AttrType, _ATTRIBUTES[plain])
            attributes.append(OpSchema.Attribute(argument.name, attribute, required=False))
    single = OpSchema.FormalParameterOption.Single
    results = [parameter(f"out{i}", single) for i in range(len(op._schema.returns))]
    return OpSchema(
        name, DOMAIN, 1, "", inputs=parameters, outputs=results, type_constraints=types,
        attributes=attributes,
    )  # fmt: skip
