"""Tensors and types that stand in an ONNX file: data as long as shapes say, types that exist."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import onnx
import onnx_ir

from effc.diagnostics import ModelError
from effc.frontend.onnx.damage import damaged, text
from effc.frontend.onnx.external import Extent, read_extent
from effc.frontend.onnx.views import node_label

_FIELDS = {
    "float_data": ("FLOAT", "COMPLEX64"),
    "double_data": ("DOUBLE", "COMPLEX128"),
    "int64_data": ("INT64",),
    "uint64_data": ("UINT32", "UINT64"),
    "string_data": ("STRING",),
}
_FIELD_OF = {kind: field for field, kinds in _FIELDS.items() for kind in kinds}
_PER_ENTRY = {"COMPLEX64": 0.5, "COMPLEX128": 0.5, "INT4": 2, "UINT4": 2, "FLOAT4E2M1": 2,
              "INT2": 4, "UINT2": 4}  # fmt: skip
"""Elements that one entry of a typed field holds, where it is not one."""


def check_tensors(model: onnx.ModelProto, place: str) -> list[Extent]:
    """Check all tensors of a file; what lies in other files is returned, unchecked.

    Raises:
        ModelError: E0310, or E0302 for sparse tensors.
    """
    extents = []
    for label, tensor in _all_tensors(model, place):
        kind = _kind(tensor.data_type, label, place)
        text(tensor.name, f"the name of {label}", place)
        count = _count(tensor.dims, label, place)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            extents.append(read_extent(tensor, label, _bytes(kind, count, label, place), place))
        else:
            _check_length(tensor, kind, count, label, place)
    return extents


def byte_count(kind: onnx_ir.DataType, count: int) -> int:
    """Bytes of so many elements, packed as ONNX packs them."""
    return -(-count * kind.bitwidth // 8)


def check_types(model: onnx.ModelProto, place: str) -> None:
    """Check that inputs have types, and that no input or output has a negative size.

    Raises:
        ModelError: E0310 names the inputs.
    """
    for value in (*model.graph.input, *model.graph.output):
        kind = value.type.WhichOneof("value")
        shape = value.type.tensor_type.shape if kind == "tensor_type" else None
        sizes = [dim.dim_value for dim in shape.dim if dim.HasField("dim_value")] if shape else []
        if min(sizes, default=0) < 0:
            help = "leave unknown sizes open, or give them a name (dim_param)"
            raise damaged(place, f"{value.name!r} has a negative size: {sizes}", help)
    untyped = [value.name for value in model.graph.input if not _is_typed(value.type)]
    if untyped:
        help = "declare element types: onnx.helper.make_tensor_value_info"
        raise damaged(place, f"inputs of the graph have no type: {', '.join(untyped)}", help)


def _is_typed(type: onnx.TypeProto) -> bool:
    """Whether the element type is known all the way down."""
    kind = type.WhichOneof("value")
    if kind in ("tensor_type", "sparse_tensor_type"):
        return getattr(type, kind).elem_type != onnx.TensorProto.UNDEFINED
    if kind in ("sequence_type", "optional_type"):
        return _is_typed(getattr(type, kind).elem_type)
    return kind is not None


def _all_tensors(model: onnx.ModelProto, place: str) -> Iterator[tuple[str, onnx.TensorProto]]:
    for body in (model.graph, *model.functions):
        yield from _tensors_of(body, place)


def _tensors_of(body: Any, place: str) -> Iterator[tuple[str, onnx.TensorProto]]:
    if getattr(body, "sparse_initializer", ()):
        raise _sparse("an initializer", place)
    for tensor in getattr(body, "initializer", ()):
        yield f"initializer {tensor.name!r}", tensor
    for i, node in enumerate(body.node):
        for attribute in node.attribute:
            label = f"attribute {attribute.name!r} of {node_label(node, i)}"
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                raise _sparse(label, place)
            if attribute.HasField("t"):
                yield label, attribute.t
            for tensor in attribute.tensors:
                yield label, tensor
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _tensors_of(graph, place)


def _sparse(label: str, place: str) -> ModelError:
    help = "export the model with dense tensors"
    message = f"{label} is a sparse tensor, which is not supported"
    return ModelError("E0302", message, where=place, help=help)


def _kind(number: int, label: str, place: str) -> onnx_ir.DataType:
    try:
        kind = onnx_ir.DataType(number)
    except ValueError:
        message = f"{label} has the element type {number}, which does not exist"
        raise damaged(place, message) from None
    if kind == onnx_ir.DataType.UNDEFINED:
        raise damaged(place, f"{label} has no element type")
    return kind


def _count(dims: Any, label: str, place: str) -> int:
    if any(size < 0 for size in dims):
        raise damaged(place, f"{label} has a negative size: {list(dims)}")
    return math.prod(dims)


def _bytes(kind: onnx_ir.DataType, count: int, label: str, place: str) -> int:
    if kind == onnx_ir.DataType.STRING:
        raise damaged(place, f"{label} holds strings, which cannot lie in another file")
    return byte_count(kind, count)


def _check_length(
    tensor: onnx.TensorProto, kind: onnx_ir.DataType, count: int, label: str, place: str
) -> None:
    """Compare the data of a tensor with its shape."""
    if tensor.HasField("segment"):
        raise damaged(place, f"{label} is one segment of a tensor; segments are not supported")
    if tensor.HasField("raw_data"):
        found, needed, unit = len(tensor.raw_data), _bytes(kind, count, label, place), "bytes"
    else:
        field = _FIELD_OF.get(kind.name, "int32_data")
        found, unit = len(getattr(tensor, field)), f"entries of {field}"
        needed = math.ceil(count / _PER_ENTRY.get(kind.name, 1))
    if found != needed:
        shape = f"{kind.name.lower()} {list(tensor.dims)}"
        message = f"{label} is {shape}: that takes {needed} {unit}, the file has {found}"
        raise damaged(place, message)
