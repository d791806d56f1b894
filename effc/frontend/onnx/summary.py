"""What an ONNX file says about itself, as JSON-ready data; nothing is captured, no weight read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import onnx_ir

from effc.frontend.onnx import table
from effc.frontend.onnx.checks import external_tensors
from effc.frontend.onnx.origin import origin
from effc.frontend.onnx.tensors import byte_count
from effc.frontend.onnx.versions import shown

_PAST = ("past", "cache")
_PRESENT = ("present", "cache")

# Operators that hold quantized values -> what they are called together.
_QUANTIZED = {
    "MatMulNBits": "MatMulNBits",
    "MatMulBnb4": "bitsandbytes",
    "GatherBlockQuantized": "GatherBlockQuantized",
    "QuantizeLinear": "QDQ",
    "DequantizeLinear": "QDQ",
    "DynamicQuantizeLinear": "dynamic",
    "DynamicQuantizeMatMul": "dynamic",
    "MatMulInteger": "integer",
    "MatMulIntegerToFloat": "integer",
    "ConvInteger": "integer",
}
_DETAILS = ("bits", "block_size", "accuracy_level")

Fact = dict[str, Any]


def summarize(model: onnx_ir.Model) -> Fact:
    """Facts about a model.

    Args:
        model: from the reader.

    Returns:
        producer, exporter, sign (what the exporter is known by), ir_version, opsets, inputs,
        outputs, parameters, bytes, elements (by type), external, functions, operators (with
        `support`: "direct", "function", "own function" or "unsupported"), quantization, cache.
    """
    made = origin(model)
    weights = list(_weights(model.graph))
    sizes = [(tensor.dtype, tensor.size) for tensor in weights]
    return {
        "producer": f"{model.producer_name or 'unknown'} {model.producer_version or ''}".strip(),
        "exporter": made.exporter,
        "sign": made.sign,
        "ir_version": model.ir_version,
        "opsets": {domain or "ai.onnx": version for domain, version in _opsets(model).items()},
        "inputs": [_value(value) for value in _real_inputs(model)],
        "outputs": [_value(value) for value in model.graph.outputs],
        "parameters": sum(size for _, size in sizes),
        "bytes": sum(_bytes(kind, size) for kind, size in sizes),
        "elements": _elements(sizes),
        "external": _external(model),
        "functions": len(model.functions),
        "operators": _operators(model),
        "quantization": _quantization(model),
        "cache": _cache(model),
    }


def unsupported(facts: Fact) -> list[str]:
    """The operators of a summary that nothing can translate, for a message."""
    return [
        f"{op['name']} ({shown(op['domain'])}, {op['count']} nodes)"
        for op in facts["operators"]
        if op["support"] == "unsupported"
    ]


def type_name(kind: onnx_ir.DataType) -> str:
    """An element type as torch and numpy call it."""
    name = kind.name.lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


def _opsets(model: onnx_ir.Model) -> dict[str, int]:
    return {table.plain_domain(d): version for d, version in model.opset_imports.items()}


def _real_inputs(model: onnx_ir.Model) -> list[onnx_ir.Value]:
    """Before version 4 of the format, initializers stood among the inputs too."""
    return [value for value in model.graph.inputs if value.const_value is None]


def _value(value: onnx_ir.Value) -> Fact:
    kind = value.type
    named = type_name(kind.dtype) if isinstance(kind, onnx_ir.TensorType) else str(kind)
    sizes = None if value.shape is None else [_size(size) for size in value.shape]
    return {"name": str(value.name), "type": named, "shape": sizes}


def _size(size: Any) -> int | str:
    return size if isinstance(size, int) else str(size.value or "?")


def _weights(graph: onnx_ir.Graph) -> Iterator[onnx_ir.TensorProtocol]:
    """Initializers, and constants of more than one element, which some exporters write instead."""
    for value in graph.initializers.values():
        if value.const_value is not None:
            yield value.const_value
    for node in graph.all_nodes():
        for attribute in node.attributes.values():
            if not attribute.is_ref() and attribute.type.name == "TENSOR":
                yield attribute.value
            elif not attribute.is_ref() and attribute.type.name == "GRAPH":
                tensors = (value.const_value for value in attribute.value.initializers.values())
                yield from (tensor for tensor in tensors if tensor is not None)


def _bytes(kind: onnx_ir.DataType, size: int) -> int:
    return 0 if kind == onnx_ir.DataType.STRING else byte_count(kind, size)


def _elements(sizes: list[tuple[onnx_ir.DataType, int]]) -> list[Fact]:
    """Element types, those with the most bytes first."""
    found: dict[onnx_ir.DataType, list[int]] = {}
    for kind, size in sizes:
        found.setdefault(kind, []).append(size)
    rows = [
        {
            "type": type_name(kind),
            "tensors": len(counts),
            "parameters": sum(counts),
            "bytes": sum(_bytes(kind, size) for size in counts),
        }
        for kind, counts in found.items()
    ]
    return sorted(rows, key=lambda row: (-row["bytes"], row["type"]))


def _external(model: onnx_ir.Model) -> list[Fact]:
    """Files beside the model, with what lies in them."""
    found: dict[str, list[int]] = {}
    for graph in (model.graph, *(body.graph for body in model.functions.values())):
        for tensor in external_tensors(graph):
            found.setdefault(str(tensor.location), []).append(tensor.nbytes)
    return [{"file": f, "tensors": len(n), "bytes": sum(n)} for f, n in sorted(found.items())]


def _nodes(model: onnx_ir.Model) -> Iterator[tuple[onnx_ir.Node, dict[str, int]]]:
    """All nodes, with the versions of the operators where they stand."""
    graphs = [(model.graph, _opsets(model))]
    for body in model.functions.values():
        imports = body.graph.opset_imports.items()
        graphs.append((body.graph, {table.plain_domain(d): version for d, version in imports}))
    for graph, opsets in graphs:
        for node in graph.all_nodes():
            yield node, opsets


def _operators(model: onnx_ir.Model) -> list[Fact]:
    """Operators as often as they occur; what cannot be translated comes first."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for node, opsets in _nodes(model):
        domain = table.plain_domain(node.domain)
        if node.op_identifier() in model.functions:
            support = "own function"
        else:
            support = table.support(domain, node.op_type, opsets.get(domain, 1))
        counts[domain, node.op_type, support] += 1
    rows = [
        {"domain": domain, "name": name, "count": count, "support": support}
        for (domain, name, support), count in counts.items()
    ]
    return sorted(rows, key=lambda r: (r["support"] != "unsupported", -r["count"], r["name"]))


def _quantization(model: onnx_ir.Model) -> list[Fact]:
    """Quantized operators by kind, and by bits and blocks where they say so."""
    counts: Counter[tuple[Any, ...]] = Counter()
    for node, _ in _nodes(model):
        kind = "QLinear" if node.op_type.startswith("QLinear") else _QUANTIZED.get(node.op_type)
        if kind is not None:
            counts[(kind, *(_number(node, name) for name in _DETAILS))] += 1
    return [
        {"kind": kind} | dict(zip(_DETAILS, details, strict=True)) | {"nodes": count}
        for (kind, *details), count in counts.items()
    ]


def _number(node: onnx_ir.Node, name: str) -> int | None:
    attribute = node.attributes.get(name)
    if attribute is None or attribute.is_ref() or not isinstance(attribute.value, int):
        return None
    return attribute.value


def _cache(model: onnx_ir.Model) -> Fact | None:
    """Names of the inputs that hold past keys and values, and of the outputs that return them."""
    past = [v.name for v in _real_inputs(model) if str(v.name).lower().startswith(_PAST)]
    present = [v.name for v in model.graph.outputs if str(v.name).lower().startswith(_PRESENT)]
    return {"past": past, "present": present} if past or present else None
