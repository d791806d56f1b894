"""What `GroupQueryAttention` takes upon itself, and sums joined with the norms behind them.

All by dataflow: what an operator reads and who reads it, never by names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir
import torch

from effc.export.onnx.cache import source, unsplit
from effc.export.onnx.lowering import Graph, replace
from effc.export.onnx.placeholders import DOMAIN

# Where in the inputs of a placeholder `attend_past` stand mask, cos, sin, packed.
MASK, COS, SIN, PACKED = 5, 7, 8, 9


def placeholders(g: Graph, op_type: str) -> list[ir.Node]:
    """The nodes of our domain of one kind."""
    return [n for n in g.model.graph if n.domain == DOMAIN and n.op_type == op_type]


def give_rotations(g: Graph) -> None:
    """Queries and keys rotated by the same tables are rotated by the attention itself.

    Before:
        o = effc.attend_past(effc.rotary(q, cos, sin, i), effc.rotary(k, cos, sin, i), v, ...)
    After:
        o = effc.attend_past(q, k, v, ..., cos, sin)
    """
    for node in placeholders(g, "attend_past"):
        rotations = [_rotation(x, node.inputs[MASK]) for x in node.inputs[:2]]
        q, k = rotations
        if q is None or k is None or list(q.inputs[1:]) != list(k.inputs[1:]):
            continue
        # A whole number of vectors of eight angles is what its kernels take.
        if int(g.shape(q.inputs[1])[1]) % 8:  # type: ignore[arg-type]
            continue
        if q.attributes["interleaved"].value != k.attributes["interleaved"].value:
            continue
        node.resize_inputs(PACKED + 1)
        moved = {0: q.inputs[0], 1: k.inputs[0], COS: q.inputs[1], SIN: q.inputs[2]}
        for place, value in moved.items():
            node.replace_input_with(place, value)
        node.attributes.add(q.attributes["interleaved"])


def _rotation(x: ir.Value | None, mask: ir.Value | None) -> ir.Node | None:
    """The rotation that makes `x`, by the positions that attention itself would count."""
    node = None if x is None else x.producer()
    if node is None or node.domain != DOMAIN or node.op_type != "rotary":
        return None
    places = node.inputs[3].producer()  # type: ignore[union-attr]
    own = places is not None and places.op_type == "positions" and places.inputs[0] is mask
    return node if own else None


def pack_projections(g: Graph) -> None:
    """Three projections of one input become one, which attention takes as it is.

    Before:
        q, k, v = heads(linear(x, a)), heads(linear(x, b)), heads(linear(x, c))
        o = effc.attend_past(q, k, v, ...)
    After:
        y = linear(x, cat([a, b, c]))
        o = effc.attend_past(..., packed=y)
    """
    for node in placeholders(g, "attend_past"):
        rows = [unsplit(x) for x in node.inputs[:3]]  # type: ignore[arg-type]
        if any(r is None for r in rows):
            continue
        packed = _sliced(rows) or _joined(g, rows)  # type: ignore[arg-type]
        if packed is not None:
            node.resize_inputs(PACKED + 1)
            node.replace_input_with(PACKED, packed)


def _sliced(rows: Sequence[ir.Value]) -> ir.Value | None:
    """The one tensor that queries, keys and values are cut from, one behind the other."""
    at, whole = 0, None
    for row in rows:
        node = row.producer()
        if node is None or node.op_type != "Slice" or len(node.inputs) < 4:
            return None
        start, end, axis = (_number(x) for x in node.inputs[1:4])
        width = int(row.shape[-1])  # type: ignore[index,arg-type]
        if start != at or end is None or end < at + width or axis not in (2, -1):
            return None
        if whole not in (None, node.inputs[0]):
            return None
        at, whole = at + width, node.inputs[0]
    fits = whole is not None and whole.shape is not None and whole.shape[-1] == at
    return whole if fits else None


def _number(x: ir.Value | None) -> int | None:
    held = None if x is None else ir.convenience.get_const_tensor(x)
    return None if held is None or held.size != 1 else int(held.numpy().reshape(()))


def _joined(g: Graph, rows: Sequence[ir.Value]) -> ir.Value | None:
    """One linear layer in the place of three, if they have the same input and the same form."""
    made = [row.producer() for row in rows]
    first = made[0]
    if first is None or first.op_type not in ("linear", "quantized_linear"):
        return None
    for node in made:
        alike = (
            node is not None
            and node.op_type == first.op_type
            and node.inputs[0] is first.inputs[0]
            and _presence(node) == _presence(first)
            and _settings(node) == _settings(first)
            and len(node.outputs[0].uses()) == 1
        )
        if not alike:
            return None
    nodes: list[ir.Node] = made  # type: ignore[assignment]
    if len(set(nodes)) < 3 or not all(_private(x) for n in nodes for x in n.inputs[1:]):
        return None
    planes = [_stacked(g, [n.inputs[i] for n in nodes]) for i in range(1, len(first.inputs))]
    with g.before(first):
        result = g.op(
            first.op_type,
            first.inputs[0],
            *planes,
            domain=DOMAIN,
            **{k: a.value for k, a in first.attributes.items()},
        )
    batch, tokens, _ = g.shape(first.outputs[0])
    width = sum(int(g.shape(n.outputs[0])[-1]) for n in nodes)
    result.dtype, result.shape = first.outputs[0].dtype, ir.Shape([batch, tokens, width])
    return result


def _presence(node: ir.Node) -> list[bool]:
    return [x is not None for x in node.inputs]


def _settings(node: ir.Node) -> dict[str, object]:
    return {name: attribute.value for name, attribute in node.attributes.items()}


def _private(x: ir.Value | None) -> bool:
    """A constant that costs nothing to keep twice: nobody else reads it, or it is a vector.

    Equal biases, all zeros for instance, are one constant with many readers.
    """
    if x is None:
        return True
    return x.const_value is not None and (len(x.uses()) == 1 or len(x.shape or (0, 0)) == 1)


def _stacked(g: Graph, parts: Sequence[ir.Value | None]) -> ir.Value | None:
    """Planes of several weights as those of one with all their rows."""
    if parts[0] is None:
        return None
    values = [g.weight(part) for part in parts]  # type: ignore[arg-type]
    name = str(parts[0].name).replace(".q_proj.", ".qkv_proj.")
    name = name if name != parts[0].name else f"{name}.qkv"
    shape = [sum(v.shape[0] for v in values), *values[0].shape[1:]]  # type: ignore[union-attr]
    assert parts[0].dtype is not None
    return g.constant(name, lambda: torch.cat(values), shape, parts[0].dtype)  # type: ignore[arg-type]


def join_heads(g: Graph) -> None:
    """A result that is split into heads and merged again at once stays as it is.

    Before:
        y = Reshape(Transpose(Transpose(Reshape(o, [B, T, H, D]))), [B, T, H * D])
    After:
        y = o
    """
    for node in list(g.model.graph):
        if node.op_type != "Reshape" or node.domain != "":
            continue
        turned = source(node.inputs[0], "Transpose", perm=[0, 2, 1, 3])  # type: ignore[arg-type]
        rows = None if turned is None else unsplit(turned)
        result = node.outputs[0]
        if rows is None or result.shape is None or len(result.shape) != 3:
            continue
        if result.shape[-1] == rows.shape[-1]:  # type: ignore[index]
            replace(node, (rows,))


def skip_norms(g: Graph) -> None:
    """A sum and the norm of it are one operator that gives both.

    Before:
        s = Add(a, b)
        y = SimplifiedLayerNormalization(s, weight)
    After:
        y, _, _, s = SkipSimplifiedLayerNormalization(a, b, weight)
    """
    for node in list(g.model.graph):
        if node.op_type != "SimplifiedLayerNormalization":
            continue
        total = node.inputs[0]
        add = None if total is None else total.producer()
        if add is None or add.op_type != "Add" or total.is_graph_output():  # type: ignore[union-attr]
            continue
        if not _same_shape(*add.inputs) or len(add.inputs[0].shape) != 3:  # type: ignore[union-attr,arg-type]
            continue
        first = min((user for user, _ in total.uses()), key=_order(g))  # type: ignore[union-attr]
        with g.before(first):
            made = g.op(
                "SkipSimplifiedLayerNormalization", *add.inputs, node.inputs[1],
                domain="com.microsoft", outputs=4, epsilon=node.attributes["epsilon"].value,
            )  # fmt: skip
        replace(node, (made[0],))
        replace(add, (made[3],))


def _order(g: Graph) -> Callable[[ir.Node], int]:
    places = {node: i for i, node in enumerate(g.model.graph)}
    return lambda node: places[node]


def _same_shape(a: ir.Value | None, b: ir.Value | None) -> bool:
    if a is None or b is None or a.shape is None or b.shape is None:
        return False
    return list(map(str, a.shape)) == list(map(str, b.shape))
