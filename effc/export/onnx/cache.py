"""Attention over held and new tokens in ONNX."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
import torch

from effc.export.onnx.lowering import Graph
from effc.export.onnx.positions import every_position
from effc.kernels.attention.onnx import attend, column, count, size, visible
from effc.kernels.onnx import Value


def attend_past(
    g: Graph,
    q: Value,
    k: Value,
    v: Value,
    past_key: Value,
    past_value: Value,
    mask: Value,
    sinks: Value | None = None,
    cos: Value | None = None,
    sin: Value | None = None,
    packed: Value | None = None,
    **options: Any,
) -> tuple[Value, Value, Value]:
    """The result and the cache afterwards; see `effc.export.onnx.operators.attend_past`.

    `cos`, `sin` and `packed` come from `effc.export.onnx.fusion`: rotations left to the operator,
    and queries, keys and values in one tensor.
    """
    past = past_key, past_value
    if g.grouped:
        rotation = None if cos is None or sin is None else (cos, sin)
        return _grouped(g, (q, k, v), past, mask, sinks, rotation, packed, **options)
    return _standard(g, q, (k, v), past, mask, sinks, **options)


def _standard(
    g: Graph,
    q: Value,
    new: tuple[Value, Value],
    past: tuple[Value, Value],
    mask: Value,
    sinks: Value | None,
    *,
    scale: float,
    window: int | None = None,
    chunk: int | None = None,
    softcap: float | None = None,
) -> tuple[Value, Value, Value]:
    """`Attention` with a mask for everything; written out before opset 23."""
    seen = g.op("Unsqueeze", _seen(g, q, mask, window, chunk), g.ints(1))
    if g.opset >= 23 and sinks is None and softcap is None:
        return g.op("Attention", q, *new, seen, *past, outputs=3, scale=scale)
    keys, values = (
        g.op("Concat", held, fresh, axis=2) for held, fresh in zip(past, new, strict=True)
    )
    for whole, held in ((keys, past[0]), (values, past[1])):
        whole.shape = held.shape
    return attend(g, q, keys, values, seen, sinks, scale=scale, softcap=softcap), keys, values


def _seen(g: Graph, q: Value, mask: Value, window: int | None, chunk: int | None) -> Value:
    """Which of the S tokens each of the T new ones sees, [B, T, S].

    Padding is seen by itself alone: a query has to see something.
    """
    S, T = size(g, mask, 1), size(g, q, 2)
    place = count(g, S)  # [S]
    own = column(g, g.op("Slice", place, g.op("Neg", T), g.ints(2**63 - 1)))  # [T, 1]
    causal = g.op("LessOrEqual", place, own)  # [T, S]
    real = g.op("Unsqueeze", g.cast(mask, torch.bool), g.ints(1))  # [B, 1, S]
    seen = g.op("And", causal, real)
    if window is not None or chunk is not None:
        every = every_position(g, mask)
        new = g.op("Slice", every, g.op("Neg", T), g.ints(2**63 - 1), g.ints(1))
        near = visible(g, column(g, new), g.op("Unsqueeze", every, g.ints(1)), False, window, chunk)
        seen = g.op("And", seen, near)
    return g.op("Or", seen, g.op("Equal", place, own))


def _grouped(
    g: Graph,
    new: tuple[Value, Value, Value],
    past: tuple[Value, Value],
    mask: Value,
    sinks: Value | None,
    rotation: tuple[Value, Value] | None,
    packed: Value | None,
    *,
    scale: float,
    window: int | None = None,
    chunk: int | None = None,
    softcap: float | None = None,
    interleaved: bool = False,
) -> tuple[Value, Value, Value]:
    """`GroupQueryAttention`: rows of [B, T, H * D], lengths instead of a mask."""
    heads = int(g.shape(new[0])[1])
    kv_heads, width = (int(g.shape(past[0])[d]) for d in (1, 3))
    rows = (packed, None, None) if packed is not None else tuple(merged(g, x) for x in new)
    held = g.op("Sub", g.op("ReduceSum", mask, g.ints(1), keepdims=0), g.ints(1))
    total = g.op("Gather", g.op("Shape", mask), g.index(1))
    options: dict[str, Any] = {"num_heads": heads, "kv_num_heads": kv_heads, "scale": scale}
    if window is not None:
        options["local_window_size"] = window
    if softcap is not None:
        options["softcap"] = softcap
    if rotation is not None:
        options |= {"do_rotary": 1, "rotary_interleaved": int(interleaved)}
        rotation = tuple(g.cast(table, g.dtype(past[0])) for table in rotation)  # type: ignore[assignment]
    sink = [None, None, g.cast(sinks, g.dtype(past[0]))] if sinks is not None else []
    out, key, value = g.op(
        "GroupQueryAttention", *rows, *past, g.cast(held, torch.int32), g.cast(total, torch.int32),
        *(rotation or (None, None)), *sink, domain="com.microsoft", outputs=3, **options,
    )  # fmt: skip
    lead = g.shape(new[0])
    out.shape = ir.Shape([lead[0], lead[2], heads * width])
    split = g.op("Reshape", out, g.ints(0, 0, heads, width))
    return g.op("Transpose", split, perm=[0, 2, 1, 3]), key, value


def merged(g: Graph, x: Value) -> Value:
    """[B, H, T, D] -> [B, T, H * D], undoing the split of a projection where there is one."""
    heads, width = (int(g.shape(x)[d]) for d in (1, 3))
    if (rows := unsplit(x)) is not None:
        return rows
    turned = g.op("Transpose", x, perm=[0, 2, 1, 3])
    return g.op("Reshape", turned, g.ints(0, 0, heads * width))


def unsplit(x: Value) -> Value | None:
    """The rows [B, T, H * D] that x [B, H, T, D] is a view of, if it is one."""
    split = source(x, "Transpose", perm=[0, 2, 1, 3])
    rows = None if split is None else source(split, "Reshape")
    if rows is None or rows.shape is None or len(rows.shape) != 3:
        return None
    _, heads, _, width = x.shape
    return rows if rows.shape[2] == heads * width else None


def source(x: Value, op_type: str, **attributes: Any) -> Value | None:
    """The first input of the operator that makes `x`, if it is this one."""
    node = x.producer()
    if node is None or node.op_type != op_type or node.domain != "":
        return None
    for name, value in attributes.items():
        if list(node.attributes[name].value) != list(value):
            return None
    return node.inputs[0]
