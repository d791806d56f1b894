"""Operators that exist between a stage and its ONNX graph only.

They are declared, never computed: `torch.export` asks for their shapes, then they are translated
(`effc.export.onnx.cache`, `effc.export.onnx.positions`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

NAMESPACE = "effc_onnx"

LIBRARY = torch.library.Library(NAMESPACE, "DEF")


def _declare(schema: str, fake: Callable[..., object]) -> torch._ops.OpOverload:
    name = schema.split("(", 1)[0]
    LIBRARY.define(schema)
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=LIBRARY)
    return getattr(getattr(torch.ops, NAMESPACE), name).default


def _attend_past(
    q: Tensor, k: Tensor, v: Tensor, past_key: Tensor, past_value: Tensor, *rest: object
) -> tuple[Tensor, Tensor, Tensor]:
    held = past_key.shape[2] + k.shape[2]
    return (
        q.new_empty(*q.shape[:3], v.shape[3]),
        past_key.new_empty(*k.shape[:2], held, k.shape[3]),
        past_value.new_empty(*v.shape[:2], held, v.shape[3]),
    )


attend_past = _declare(
    "attend_past(Tensor q, Tensor k, Tensor v, Tensor past_key, Tensor past_value, Tensor mask,"
    " Tensor? sinks, int? window, int? chunk, float scale, float? softcap, str name)"
    " -> (Tensor, Tensor, Tensor)",
    _attend_past,
)
"""Causal attention of new tokens over held and new ones, and the cache afterwards.

q `[B, H, T, D]`, k and v `[B, H_kv, T, D]`, past `[B, H_kv, P, D]`, mask `[B, P + T]` int64 with a
one for every token and a zero for padding -> `[B, H, T, D_v]` and two `[B, H_kv, P + T, D]`.
"""

positions = _declare(
    "positions(Tensor mask, Tensor tokens) -> Tensor",
    lambda mask, tokens: mask.new_empty(tokens.shape[:2]),
)
"""Positions `[B, T]` of new tokens, ids `[B, T]` or embeddings `[B, T, W]`; mask as in
`attend_past`."""

rotary = _declare(
    "rotary(Tensor x, Tensor cos, Tensor sin, Tensor positions, bool interleaved) -> Tensor",
    lambda x, cos, sin, positions, interleaved: torch.empty_like(x),
)
"""Rotate the first 2R coordinates of x `[B, H, T, D]` by angles given in tables `[context, R]`."""
