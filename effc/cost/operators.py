"""What one call of an operator computes and moves.

FLOPs count two per multiply-add of products, and a few per element of everything else. Bytes count
every tensor that a call reads once and every tensor that it writes once: what the program moves
when no operator is fused and no cache of the processor holds anything in between.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from effc.cost.shapes import Shapes, tensors, value_of
from effc.cost.visibility import Mask, pairs

Macs = Callable[[fx.Node, Shapes, int], int]
"""(call, sizes, tokens held in the cache) -> multiply-adds."""


def packet(node: fx.Node) -> str:
    """`"aten.mul"` for a call of `aten.mul.Tensor`; the function's name for arithmetic on sizes."""
    if isinstance(node.target, torch._ops.OpOverload):
        return str(node.target).rpartition(".")[0]
    return getattr(node.target, "__name__", str(node.target))


def _shape(node: fx.Node, at: int, shapes: Shapes) -> tuple[int, ...]:
    return shapes.of(value_of(node.args[at]))  # type: ignore[arg-type]


def _inner(at: int) -> Macs:
    """Products over the last dimension of argument `at`."""

    def macs(node: fx.Node, shapes: Shapes, held: int) -> int:
        return shapes.numel(value_of(node)) * _shape(node, at, shapes)[-1]

    return macs


def _convolution(node: fx.Node, shapes: Shapes, held: int) -> int:
    weight = _shape(node, 1, shapes)
    transposed = packet(node) == "aten.convolution" and bool(node.args[6])
    if transposed or "transpose" in packet(node):
        # Every input element meets a kernel for each output channel of its group.
        return shapes.numel(value_of(node.args[0])) * math.prod(weight[1:])  # type: ignore[arg-type]
    return shapes.numel(value_of(node)) * math.prod(weight[1:])


def _einsum(node: fx.Node, shapes: Shapes, held: int) -> int:
    """One multiply-add per combination of all indices: right for two operands."""
    equation = str(node.args[0]).replace(" ", "").partition("->")[0]
    operands: Any = node.args[1]
    extent: dict[str, int] = {}
    for labels, operand in zip(equation.split(","), operands, strict=True):
        extent |= dict(zip(labels, shapes.of(value_of(operand)), strict=True))
    return math.prod(extent.values())


def _attention_at(causal: int, window: int | None, chunk: int | None, cached: bool) -> Macs:
    """Scores and weighted values of visible pairs; arguments say where the mask stands."""

    def macs(node: fx.Node, shapes: Shapes, held: int) -> int:
        batch, heads, tokens, key_width = _shape(node, 0, shapes)
        value_width = shapes.of(value_of(node))[-1]
        mask = mask_of(node, causal, window, chunk)
        if cached or _self_attention(node):
            seen = pairs(mask, tokens, held)
        else:
            seen = tokens * _shape(node, 1, shapes)[2]
        return batch * heads * seen * (key_width + value_width)

    return macs


def _self_attention(node: fx.Node) -> bool:
    q, k = (value_of(arg) for arg in node.args[:2])  # type: ignore[arg-type]
    return str(q.shape[2]) == str(k.shape[2])


def mask_of(node: fx.Node, causal: int, window: int | None, chunk: int | None) -> Mask:
    """The mask of a call whose arguments stand at these places."""

    def at(place: int | None) -> Any:
        return node.args[place] if place is not None and len(node.args) > place else None

    return Mask(bool(at(causal)), at(window), at(chunk))


ATTENTION_ARGUMENTS = (4, 5, 6)
ATTEND_ARGUMENTS = (10, 11, 12)

PRODUCTS: dict[str, Macs] = {
    **dict.fromkeys(("aten.linear", "aten.matmul", "aten.mm", "aten.bmm", "aten.mv", "aten.dot",
                     "aten._grouped_mm"), _inner(0)),
    **dict.fromkeys(("aten.addmm", "aten.baddbmm"), _inner(1)),
    **{f"aten.conv{d}d": _convolution for d in (1, 2, 3)},
    **{f"aten.conv_transpose{d}d": _convolution for d in (1, 2, 3)},
    "aten.convolution": _convolution,
    "aten.einsum": _einsum,
    "aten.scaled_dot_product_attention": _attention_at(5, None, None, cached=False),
    "effc.attention": _attention_at(*ATTENTION_ARGUMENTS, cached=False),
    "effc.attend": _attention_at(*ATTEND_ARGUMENTS, cached=True),
    "effc.quantized_linear": _inner(0),
    "effc.grouped_linear": _inner(0),
    "effc.quantized_grouped_linear": _inner(0),
}  # fmt: skip
"""Operators that are sums of products."""


def _aten(names: str) -> frozenset[str]:
    return frozenset(f"aten.{name}" for name in names.split())


VIEWS = _aten(
    "alias as_strided broadcast_to chunk detach diagonal expand expand_as movedim narrow permute "
    "select slice split split_with_sizes squeeze swapaxes t transpose unbind unflatten unfold "
    "unsafe_chunk unsafe_split unsqueeze view view_as _unsafe_view _reshape_alias numpy_T "
    "tensor_split view_as_real view_as_complex real imag sym_size sym_numel"
)
"""Operators whose result shares the memory of their input."""

MAYBE_VIEWS = _aten("reshape reshape_as flatten contiguous to type_as")
"""Views where the layout and the type of the input allow it, else copies."""

COPIES = _aten(
    "clone _to_copy cat concat concatenate stack hstack vstack column_stack repeat tile flip roll "
    "repeat_interleave index index_select gather take take_along_dim embedding pad "
    "constant_pad_nd one_hot arange full full_like ones ones_like zeros zeros_like empty "
    "empty_like new_empty new_full new_ones new_zeros eye scalar_tensor lift_fresh_copy triu tril "
    "masked_fill fill where index_put scatter slice_scatter select_scatter index_copy tril_indices "
    "triu_indices masked_scatter masked_select nonzero scatter_add index_add dropout"
) | {"effc.select_rows", "effc.cache_write", "effc.cache_write_"}
"""Operators that move values without computing."""

REDUCTIONS = _aten(
    "sum mean prod var std var_mean logsumexp all any amax amin max min argmax argmin cumsum "
    "cumprod topk sort argsort count_nonzero linalg_vector_norm norm median"
)
"""Operators that look at every element of their first input once."""

PER_ELEMENT: dict[str, int] = {
    **dict.fromkeys(
        _aten(
            "abs add sub rsub mul div neg exp exp2 log log1p log2 sqrt rsqrt reciprocal sin cos "
            "tan tanh erf sigmoid relu relu6 leaky_relu hardswish hardsigmoid hardtanh elu clamp "
            "clamp_min clamp_max floor ceil round trunc sign pow square maximum minimum remainder "
            "floor_divide fmod addcmul addcdiv lerp eq ne lt le gt ge logical_and logical_or "
            "logical_not logical_xor bitwise_and bitwise_or bitwise_xor bitwise_not __and__ "
            "__or__ isnan isinf isfinite expm1 atan atan2 true_divide nan_to_num"
        ),
        1,
    ),
    **dict.fromkeys(_aten("silu gelu mish softplus glu"), 5),
    **dict.fromkeys(_aten("softmax _softmax log_softmax _log_softmax"), 5),
    **dict.fromkeys(_aten("layer_norm native_layer_norm group_norm batch_norm instance_norm"), 8),
    "aten.rms_norm": 4,
    "effc.rms_norm": 4,
    "effc.rope": 3,
    "effc.gated_activation": 6,
    "effc.token_index": 1,
    "effc.quantized_embedding": 1,
}
"""FLOPs per element of the result."""


def is_view(node: fx.Node) -> bool:
    """Whether a call's result shares the memory of its first input."""
    name = packet(node)
    if name in VIEWS or name == "getitem":
        return True
    if name not in MAYBE_VIEWS:
        return False
    source: Any = node.args[0]
    old, new = value_of(source), value_of(node)
    if old.dtype != new.dtype:
        return False
    return name in ("aten.to", "aten.type_as") or packet(source) not in _SCATTERED


# Views after which elements do not lie in order, so that a reshape has to copy them.
_SCATTERED = _aten(
    "transpose permute t movedim swapaxes expand expand_as slice select narrow unfold "
    "broadcast_to numpy_T split chunk unbind"
)


def flops(node: fx.Node, shapes: Shapes, held: int) -> tuple[int, bool]:
    """FLOPs of a call, and whether the tables know its operator.

    An unknown operator counts as elementwise.
    """
    name = packet(node)
    if name in PRODUCTS:
        return 2 * PRODUCTS[name](node, shapes, held), True
    if is_view(node) or name in COPIES or name in MAYBE_VIEWS or not tensors(value_of(node)):
        return 0, True
    if name in REDUCTIONS:
        return shapes.numel(value_of(node.args[0])), True  # type: ignore[arg-type]
    elements = sum(shapes.numel(tensor) for tensor in tensors(value_of(node)))
    return PER_ELEMENT.get(name, 1) * elements, name in PER_ELEMENT
