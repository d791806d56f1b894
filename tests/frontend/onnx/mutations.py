"""Ways to spoil an ONNX model, each a function of the model and a source of randomness."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from tests.frontend.onnx.files import place

Mutation = Callable[[onnx.ModelProto, random.Random], object]

NUMBERS = (-(2**63), -(2**31), -7, -1, 0, 1, 2, 3, 5, 64, 2**31, 2**40, 2**62, 2**63 - 1)
TYPES = (0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 14, 16, 17, 21, 22, 23, 77)
OPERATORS = (
    "Add", "Attention", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Constant",
    "ConstantOfShape", "Conv", "CumSum", "DequantizeLinear", "Einsum", "Expand", "Flatten", "GRU",
    "Gather", "GatherND", "Gemm", "Identity", "If", "LSTM", "LayerNormalization", "Loop", "MatMul",
    "Mod", "NonZero", "OneHot", "Optional", "Pad", "QuantizeLinear", "Range", "ReduceSum",
    "Reshape", "Resize", "RotaryEmbedding", "Scan", "ScatterND", "SequenceAt", "Shape", "Slice",
    "Softmax", "Split", "Squeeze", "Tile", "TopK", "Transpose", "Unsqueeze", "Where",
)  # fmt: skip
MICROSOFT = (
    "BiasGelu", "FusedMatMul", "GroupQueryAttention", "MatMulNBits", "MultiHeadAttention",
    "QLinearAdd", "RotaryEmbedding", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization",
)  # fmt: skip


def _nodes(source: onnx.ModelProto) -> list[onnx.NodeProto]:
    def walk(graph: Any) -> Iterator[onnx.NodeProto]:
        for node in graph.node:
            yield node
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    yield from walk(attribute.g)

    return [node for body in (source.graph, *source.functions) for node in walk(body)]


def _names(source: onnx.ModelProto) -> list[str]:
    names = [name for node in _nodes(source) for name in (*node.input, *node.output)]
    return [*names, "nowhere", ""]


def _one(items: Any, rng: random.Random) -> Any:
    return items[rng.randrange(len(items))] if len(items) else None


def _values(tensor: onnx.TensorProto | None) -> np.ndarray | None:
    """The elements, unless an earlier mutation has spoiled them."""
    if tensor is None or not tensor.raw_data:
        return None
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError):
        return None


def swap_sizes(source: onnx.ModelProto, rng: random.Random) -> None:
    tensor = _one(source.graph.initializer, rng)
    if tensor is not None:
        tensor.dims[:] = rng.sample(list(tensor.dims), len(tensor.dims))


def set_size(source: onnx.ModelProto, rng: random.Random) -> None:
    tensor = _one(source.graph.initializer, rng)
    if tensor is not None and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(NUMBERS)


def set_input_size(source: onnx.ModelProto, rng: random.Random) -> None:
    value = _one([*source.graph.input, *source.graph.output, *source.graph.value_info], rng)
    if value is not None and value.type.tensor_type.shape.dim:
        _one(value.type.tensor_type.shape.dim, rng).dim_value = rng.choice(NUMBERS)


def drop_shape(source: onnx.ModelProto, rng: random.Random) -> None:
    value = _one(source.graph.input, rng)
    if value is not None:
        value.type.tensor_type.ClearField("shape")


def rename_size(source: onnx.ModelProto, rng: random.Random) -> None:
    value = _one(source.graph.input, rng)
    if value is not None and value.type.tensor_type.shape.dim:
        name = rng.choice(("N", "B", "", "a b", "lambda", "x" * 300, "-1", "N + 1", "\u00e9"))
        _one(value.type.tensor_type.shape.dim, rng).dim_param = name


def set_value(source: onnx.ModelProto, rng: random.Random) -> None:
    """Change a number among the constants that say sizes and axes."""
    kinds = [t for t in source.graph.initializer if t.data_type == TensorProto.INT64]
    tensor = _one(kinds, rng)
    values = _values(tensor)
    if values is not None and values.size:
        values = values.copy()
        values.flat[rng.randrange(values.size)] = rng.choice(NUMBERS)
        tensor.raw_data = values.tobytes()


def set_element_type(source: onnx.ModelProto, rng: random.Random) -> None:
    tensor = _one(source.graph.initializer, rng)
    if tensor is not None:
        tensor.data_type = rng.choice(TYPES)


def retype(source: onnx.ModelProto, rng: random.Random) -> None:
    """Convert an initializer, so that only its type does not fit."""
    tensor = _one(source.graph.initializer, rng)
    values = _values(tensor)
    if values is not None:
        kind = rng.choice((np.float64, np.float16, np.int64, np.int32, np.uint8, np.bool_))
        tensor.CopyFrom(numpy_helper.from_array((values != 0).astype(kind), tensor.name))


def reshape(source: onnx.ModelProto, rng: random.Random) -> None:
    """Give an initializer other sizes that its data fit."""
    tensor = _one(source.graph.initializer, rng)
    values = _values(tensor)
    if values is not None:
        shape = rng.choice(((-1,), (1, -1), (-1, 1), (1, 1, -1), (-1, 1, 1, 1)))
        tensor.CopyFrom(numpy_helper.from_array(values.reshape(shape), tensor.name))


def set_input_type(source: onnx.ModelProto, rng: random.Random) -> None:
    value = _one(source.graph.input, rng)
    if value is not None:
        value.type.tensor_type.elem_type = rng.choice(TYPES)


def rename_input(source: onnx.ModelProto, rng: random.Random) -> None:
    node = _one([n for n in _nodes(source) if n.input], rng)
    if node is not None:
        node.input[rng.randrange(len(node.input))] = rng.choice(_names(source))


def rename_output(source: onnx.ModelProto, rng: random.Random) -> None:
    node = _one([n for n in _nodes(source) if n.output], rng)
    if node is not None:
        node.output[rng.randrange(len(node.output))] = rng.choice(_names(source))


def add_input(source: onnx.ModelProto, rng: random.Random) -> None:
    node = _one(_nodes(source), rng)
    if node is not None:
        node.input.append(rng.choice(_names(source)))


def drop_input(source: onnx.ModelProto, rng: random.Random) -> None:
    node = _one([n for n in _nodes(source) if n.input], rng)
    if node is not None:
        del node.input[rng.randrange(len(node.input))]


def drop_initializer(source: onnx.ModelProto, rng: random.Random) -> None:
    if source.graph.initializer:
        del source.graph.initializer[rng.randrange(len(source.graph.initializer))]


def promote_initializer(source: onnx.ModelProto, rng: random.Random) -> None:
    """Make a constant an input: what was known becomes a value of run time."""
    if source.graph.initializer:
        tensor = source.graph.initializer.pop(rng.randrange(len(source.graph.initializer)))
        value = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        source.graph.input.append(value)


def drop_node(source: onnx.ModelProto, rng: random.Random) -> None:
    if source.graph.node:
        del source.graph.node[rng.randrange(len(source.graph.node))]


def double_node(source: onnx.ModelProto, rng: random.Random) -> None:
    node = _one(source.graph.node, rng)
    if node is not None:
        source.graph.node.append(node)


def swap_nodes(source: onnx.ModelProto, rng: random.Random) -> None:
    source.graph.node.sort(key=lambda _: rng.random())


def set_operator(source: onnx.ModelProto, rng: random.Random) -> None:
    node = _one(_nodes(source), rng)
    if node is not None:
        node.op_type = rng.choice(OPERATORS)


def set_fused_operator(source: onnx.ModelProto, rng: random.Random) -> None:
    node = _one(_nodes(source), rng)
    if node is not None:
        node.domain, node.op_type = "com.microsoft", rng.choice(MICROSOFT)
        source.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def set_attribute(source: onnx.ModelProto, rng: random.Random) -> None:
    """Other numbers in an attribute, of the same type."""
    found = [a for n in _nodes(source) for a in n.attribute]
    attribute = _one([a for a in found if a.type in (2, 7, 3)], rng)
    if attribute is None:
        return
    if attribute.type == AttributeProto.INT:
        attribute.i = rng.choice(NUMBERS)
    elif attribute.type == AttributeProto.STRING:
        attribute.s = rng.choice((b"", b"linear", b"\xff", b"SAME_UPPER", b"none", b"ij,jk->ik"))
    else:
        attribute.ints[:] = [rng.choice(NUMBERS) for _ in range(rng.randrange(5))]


def retype_attribute(source: onnx.ModelProto, rng: random.Random) -> None:
    attribute = _one([a for n in _nodes(source) for a in n.attribute], rng)
    if attribute is not None:
        values = (1, 1.5, "text", [1, 2], [0.5], ["a"], helper.make_tensor("t", 1, [1], [1.0]))
        attribute.CopyFrom(helper.make_attribute(attribute.name, rng.choice(values)))


def add_attribute(source: onnx.ModelProto, rng: random.Random) -> None:
    node = _one(_nodes(source), rng)
    names = ("axis", "axes", "perm", "to", "keepdims", "mode", "group", "pads", "num_heads", "bits")
    if node is not None:
        value = rng.choice((rng.choice(NUMBERS), [rng.choice(NUMBERS)], "linear", 0.5))
        node.attribute.append(helper.make_attribute(rng.choice(names), value))


def drop_attribute(source: onnx.ModelProto, rng: random.Random) -> None:
    node = _one([n for n in _nodes(source) if n.attribute], rng)
    if node is not None:
        del node.attribute[rng.randrange(len(node.attribute))]


def set_opset(source: onnx.ModelProto, rng: random.Random) -> None:
    entry = _one(source.opset_import, rng)
    if entry is not None:
        entry.version = rng.choice((-1, 0, 1, 5, 7, 9, 11, 12, 13, 15, 17, 20, 22, 23, 24, 28, 999))


def set_output(source: onnx.ModelProto, rng: random.Random) -> None:
    name = rng.choice(_names(source))
    source.graph.output.append(helper.make_tensor_value_info(name, rng.choice(TYPES), None))


def drop_outputs(source: onnx.ModelProto, rng: random.Random) -> None:
    del source.graph.output[:]


def move_outside(source: onnx.ModelProto, rng: random.Random) -> None:
    tensor = _one(source.graph.initializer, rng)
    if tensor is not None:
        location = rng.choice(
            ("../x", "/dev/zero", "model.onnx", ".", "none", "", "/proc/self/mem")
        )
        place(tensor, location, offset=rng.choice(NUMBERS), length=rng.choice(NUMBERS))


MUTATIONS: tuple[Mutation, ...] = (
    swap_sizes, set_size, set_input_size, drop_shape, rename_size, set_value, set_element_type,
    retype, reshape, set_input_type, rename_input, rename_output, add_input, drop_input,
    drop_initializer, promote_initializer, drop_node, double_node, swap_nodes, set_operator,
    set_fused_operator, set_attribute, retype_attribute, add_attribute, drop_attribute, set_opset,
    set_output, drop_outputs, move_outside,
)  # fmt: skip


def flip(data: bytes, rng: random.Random) -> bytes:
    """Change a few bytes."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def truncate(data: bytes, rng: random.Random) -> bytes:
    """Keep the start of a file."""
    return data[: rng.randrange(len(data))]


def spoil(source: onnx.ModelProto, seed: int) -> bytes:
    """The bytes of a model after up to three mutations; one in five loses bytes instead."""
    rng = random.Random(seed)
    if rng.random() < 0.2:
        return rng.choice((flip, truncate))(source.SerializeToString(), rng)
    for _ in range(rng.randrange(1, 4)):
        rng.choice(MUTATIONS)(source, rng)
    return source.SerializeToString()
