"""Positions from the attention mask, and rotations by them."""

from __future__ import annotations

from effc.export.onnx.lowering import Graph
from effc.kernels.attention.onnx import count, size
from effc.kernels.onnx import Value


def positions(g: Graph, mask: Value, tokens: Value) -> Value:
    """Positions [B, T] of the new tokens, ids [B, T] or embeddings [B, T, W].

    Grouped: tokens of a sequence lie at the beginning of its row, so the first new one has as many
    before it as the row has ones beyond the new. Otherwise padding may be anywhere.
    """
    T = size(g, tokens, 1)
    if g.grouped:
        held = g.op("Sub", g.op("ReduceSum", mask, g.ints(1), keepdims=1), T)
        return g.op("Add", g.op("Max", held, g.ints(0)), count(g, T))
    return g.op("Slice", every_position(g, mask), g.op("Neg", T), g.ints(2**63 - 1), g.ints(1))


def every_position(g: Graph, mask: Value) -> Value:
    """Positions [B, S] of held and new tokens; those of padding are never read."""
    counted = g.op("CumSum", mask, g.index(1))
    return g.op("Max", g.op("Sub", counted, g.ints(1)), g.ints(0))


def rotary(
    g: Graph, x: Value, cos: Value, sin: Value, places: Value, *, interleaved: bool
) -> Value:
    """Rotate [B, H, T, D]."""
    width, turned = int(g.shape(x)[3]), 2 * int(g.shape(cos)[1])
    cos, sin = (g.cast(table, g.dtype(x)) for table in (cos, sin))
    if g.opset >= 23:
        options = {"interleaved": int(interleaved)}
        if turned != width:
            options["rotary_embedding_dim"] = turned
        return g.op("RotaryEmbedding", x, cos, sin, places, **options)  # type: ignore[arg-type]
    c, s = (g.op("Unsqueeze", g.op("Gather", table, places), g.ints(1)) for table in (cos, sin))
    head, tail = x, None
    if turned != width:
        head, tail = g.op("Split", x, g.ints(turned, width - turned), outputs=2, axis=-1)
    rotated = (_interleaved if interleaved else _halves)(g, head, c, s, turned)
    return rotated if tail is None else g.op("Concat", rotated, tail, axis=-1)


def _turn(g: Graph, a: Value, b: Value, cos: Value, sin: Value) -> tuple[Value, Value]:
    first = g.op("Sub", g.op("Mul", a, cos), g.op("Mul", b, sin))
    return first, g.op("Add", g.op("Mul", b, cos), g.op("Mul", a, sin))


def _halves(g: Graph, x: Value, cos: Value, sin: Value, width: int) -> Value:
    a, b = g.op("Split", x, g.ints(width // 2, width // 2), outputs=2, axis=-1)
    return g.op("Concat", *_turn(g, a, b, cos, sin), axis=-1)


def _interleaved(g: Graph, x: Value, cos: Value, sin: Value, width: int) -> Value:
    pairs = g.op("Reshape", x, g.ints(0, 0, 0, width // 2, 2))
    parts = g.op("Split", pairs, g.ints(1, 1), outputs=2, axis=-1)
    a, b = (g.op("Squeeze", part, g.ints(-1)) for part in parts)
    turned = (g.op("Unsqueeze", part, g.ints(-1)) for part in _turn(g, a, b, cos, sin))
    return g.op("Reshape", g.op("Concat", *turned, axis=-1), g.ints(0, 0, 0, width))
