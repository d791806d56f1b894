"""What the inputs and outputs of an ONNX graph are for.

Exporters agree on names (`input_ids`, `past_key_values.3.key`), and files exist that use others;
so names are taken as hints, and what an input is for is read from what the graph does with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx_ir

_MOVES = ("Identity", "Cast", "Unsqueeze", "Squeeze", "Reshape", "Expand", "Flatten")
_TABLE_READERS = ("Gather", "GatherBlockQuantized")
_CACHED_ATTENTION = {
    "GroupQueryAttention": (3, 4),
    "MultiHeadAttention": (6, 7),
    "Attention": (4, 5),
}
_FLOATS = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")


@dataclass(frozen=True)
class Interface:
    """The roles of a decoder's inputs and outputs, by their ONNX names.

    Attributes:
        ids: token ids [B, T].
        logits: [B, T, V].
        positions: position ids [B, T], None when the graph counts by itself.
        masks: padding masks, one entry per token, past ones included.
        past: cached keys or values -> the dimension that grows.
        branch: the switch of a graph with and without a cache in one file.
        counters: positions of the new tokens in the cache, [T].
        dropped: further outputs that are no part of a decoder, such as hidden states.
    """

    ids: str
    logits: str
    positions: str | None = None
    masks: tuple[str, ...] = ()
    past: dict[str, int] = field(default_factory=dict)
    branch: str | None = None
    counters: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


def decoder_interface(graph: onnx_ir.Graph) -> Interface | str:
    """The interface of a decoder, or the first reason why the graph is none."""
    inputs = {str(v.name): v for v in graph.inputs if v.name not in graph.initializers}
    past = {name: axis for name, value in inputs.items() if (axis := _growing(value)) is not None}
    rest = {name: value for name, value in inputs.items() if name not in past}
    ids = _token_ids(rest, graph)
    if ids is None:
        return "no input looks up token embeddings"
    logits, dropped = _logits(graph, bool(past))
    if logits is None:
        return "no output is [batch, tokens, vocabulary]"
    roles: dict[str, list[str]] = {"positions": [], "masks": [], "branch": [], "counters": []}
    for name, value in rest.items():
        role = "ids" if name == ids else _role(name, value)
        if role is None:
            return f"the input {name!r} is none that a decoder has"
        if role != "ids":
            roles[role].append(name)
    if len(roles["positions"]) > 1:
        return f"the inputs {' and '.join(roles['positions'])} are both positions"
    return Interface(
        ids,
        logits,
        next(iter(roles["positions"]), None),
        tuple(roles["masks"]),
        past,
        next(iter(roles["branch"]), None),
        tuple(roles["counters"]),
        dropped,
    )


def _growing(value: onnx_ir.Value) -> int | None:
    """The dimension along which a cached input grows, None when it is no cache."""
    if _element(value) not in _FLOATS or value.shape is None or value.shape.rank() < 3:
        return None
    for node, index in _uses(value):
        if node.op_type == "Concat" and index == 0 and len(node.inputs) == 2:
            axis = node.attributes["axis"].as_int()
            return axis % value.shape.rank()
        if index in _CACHED_ATTENTION.get(node.op_type, ()):
            return 2
    return None


def _uses(value: onnx_ir.Value) -> Iterator[tuple[onnx_ir.Node, int]]:
    """Who reads a value, through operators that only move it, and into subgraphs."""
    seen: set[int] = set()
    pending = [value]
    while pending:
        now = pending.pop()
        if id(now) in seen:
            continue
        seen.add(id(now))
        for node, index in now.uses():
            yield node, index
            if node.op_type in _MOVES and index == 0:
                pending.append(node.outputs[0])


def _token_ids(inputs: dict[str, onnx_ir.Value], graph: onnx_ir.Graph) -> str | None:
    """The integer input that reads a table with a row for every token that the output scores.

    Where no size tells (positions may have a table too), the first that reads one.
    """
    tables = {name: _tables(value) for name, value in inputs.items() if _is_row(value)}
    found = [name for name, read in tables.items() if read]
    if "input_ids" in found:
        return "input_ids"
    last = [v.shape[-1] for v in graph.outputs if v.shape is not None and v.shape.rank()]
    scored = {size for size in last if isinstance(size, int)}
    fitting = [name for name in found if any(scored & set(shape) for shape in tables[name])]
    return next(iter(fitting or found), None)


def _tables(value: onnx_ir.Value) -> list[tuple[int, ...]]:
    """Shapes of the weights that a value picks rows of."""
    found = []
    for node, index in _uses(value):
        if node.op_type in _TABLE_READERS and index == 1:
            table = _source(node.inputs[0])
            if table is not None and table.const_value is not None and table.const_value.size > 1:
                found.append(tuple(table.const_value.shape.numpy()))
    return found


def _source(value: onnx_ir.Value | None) -> onnx_ir.Value | None:
    """The initializer behind a value, through operators that move or convert it."""
    while value is not None and value.const_value is None:
        node = value.producer()
        if node is None or node.op_type not in (*_MOVES, "Transpose", "DequantizeLinear"):
            return None
        value = node.inputs[0]
    return value


def _role(name: str, value: onnx_ir.Value) -> str | None:
    """What an input beside the token ids is for."""
    kind = _element(value)
    rank = value.shape.rank() if value.shape is not None else None
    if "attention_mask" in name and rank == 2:
        return "masks"
    if kind == "BOOL" and rank in (0, 1) and any(n.op_type == "If" for n, _ in _uses(value)):
        return "branch"
    if kind in ("INT64", "INT32") and rank == 1 and name == "cache_position":
        return "counters"
    if rank != 2 or kind not in ("INT64", "INT32", "BOOL", *_FLOATS):
        return None
    if name == "token_type_ids":
        return None
    return "positions" if "position" in name or _turns(value) else "masks"


def _turns(value: onnx_ir.Value) -> bool:
    """Whether positions come out as angles or rows of a table."""
    if _tables(value):
        return True
    for node, index in _uses(value):
        if node.op_type in ("MatMul", "Mul", "Einsum") and _reaches(node, ("Cos", "Sin"), 6):
            return True
        if node.op_type == "RotaryEmbedding" and index in (1, 3):
            return True
    return False


def _reaches(node: onnx_ir.Node, op_types: tuple[str, ...], steps: int) -> bool:
    if node.op_type in op_types:
        return True
    users = (user for out in node.outputs for user, _ in out.uses())
    return steps > 0 and any(_reaches(user, op_types, steps - 1) for user in users)


def _logits(graph: onnx_ir.Graph, cached: bool) -> tuple[str | None, tuple[str, ...]]:
    """The output with scores per token, and the further ones that are no cache."""
    plain = [str(v.name) for v in graph.outputs if not (cached and _is_present(v))]
    ranked = [
        str(v.name)
        for v in graph.outputs
        if v.name in plain and (v.shape is None or v.shape.rank() == 3)
    ]
    chosen = "logits" if "logits" in ranked else next(iter(ranked), None)
    if chosen is None or (chosen != "logits" and len(plain) > 1):
        return None, ()
    return chosen, tuple(name for name in plain if name != chosen)


def _is_present(value: onnx_ir.Value) -> bool:
    """Whether an output hands back what a cache holds."""
    node = value.producer()
    for _ in range(8):
        if node is None:
            return False
        if node.op_type in _CACHED_ATTENTION:
            return True
        if node.op_type == "Concat":
            return any(v is not None and v.is_graph_input() for v in node.inputs) or any(
                v is not None and _behind_input(v) for v in node.inputs
            )
        if node.op_type == "If":
            return "present" in str(value.name)
        if node.op_type not in (*_MOVES, "Transpose"):
            return False
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    return False


def _behind_input(value: onnx_ir.Value) -> bool:
    source: onnx_ir.Value | None = value
    while source is not None and (node := source.producer()) is not None:
        if node.op_type not in (*_MOVES, "Transpose"):
            return False
        source = node.inputs[0]
    return source is not None and source.is_graph_input()


def _is_row(value: onnx_ir.Value) -> bool:
    return (
        _element(value) in ("INT64", "INT32")
        and value.shape is not None
        and value.shape.rank() == 2
    )


def _element(value: onnx_ir.Value) -> str:
    return value.dtype.name if value.dtype is not None else ""
