"""What each operator does to dimensions that must be kept apart.

A rule looks at a call and answers why entries along an axis may meet in it, or with an empty text.
An operator without a rule is an obstacle: nobody has thought about it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx

from effc.ir.axis import Axis, expression, tensors
from effc.ir.pattern import op_name

Rule = Callable[[Axis, fx.Node], str]


def rule_of(node: fx.Node) -> Rule | None:
    """The rule for a call; pointwise operators are known by PyTorch's own tag."""
    if rule := RULES.get(op_name(node)):
        return rule
    tags = getattr(node.target, "tags", ())
    return pointwise if torch.Tag.pointwise in tags else None


def moves(axis: Axis, node: fx.Node) -> str:
    """Dimensions change places, entries stay in order."""
    return ""


def fills(axis: Axis, node: fx.Node) -> str:
    """Constants of some shape; the value must not be a size."""
    position = 1 if "full" in op_name(node) else None
    if op_name(node) == "aten.new_full.default":
        position = 2
    value = node.args[position] if position is not None and len(node.args) > position else None
    value = node.kwargs.get("fill_value", value)
    number = value.meta.get("val") if isinstance(value, fx.Node) else None
    return f"computes with the number of {axis.noun}" if axis.in_number(number) else ""


def pointwise(axis: Axis, node: fx.Node) -> str:
    """Operands are broadcast against the right: the axis must be at one place in all of them."""
    if axis.numbers(node):
        return f"computes with the number of {axis.noun}"
    output = tensors(node.meta["val"])[0]
    places = {output.dim() - d for d in axis.dims(output)}
    for source in node.all_input_nodes:
        for tensor in tensors(source.meta.get("val")):
            if {tensor.dim() - d for d in axis.dims(tensor)} - places:
                return f"aligns {axis.noun} with another dimension"
    return ""


def rotates(axis: Axis, node: fx.Node) -> str:
    """Pointwise with the cosines and sines; pairs coordinates along the last dimension."""
    source = _value(node, 0)
    mixed = source.dim() - 1 in axis.dims(source)
    return f"mixes the {axis.noun}" if mixed else pointwise(axis, node)


def one_hot(axis: Axis, node: fx.Node) -> str:
    """A dimension is appended."""
    return f"computes with the number of {axis.noun}" if axis.numbers(node) else ""


def reshapes(axis: Axis, node: fx.Node) -> str:
    """Elements keep their row-major order: entries must keep their length in it."""
    same = axis.stride(_value(node, 0)) == axis.stride(tensors(node.meta["val"])[0])
    return "" if same else f"moves elements between {axis.noun}"


def along(position: int, default: Any = None) -> Rule:
    """Acts along dimensions of its first argument.

    Args:
        position: of the dimension argument.
        default: what it is when absent; None for all dimensions.
    """

    def rule(axis: Axis, node: fx.Node) -> str:
        if axis.numbers(node):
            return f"computes with the number of {axis.noun}"
        dims = _dimensions(node, position, default)
        if dims is None:
            return "acts along all dimensions"
        sources = _first(node)
        held = {d for tensor in sources for d in axis.dims(tensor)}
        rank = max(tensor.dim() for tensor in sources)
        return f"acts along the {axis.noun}" if {d % rank for d in dims} & held else ""

    return rule


def picks(axis: Axis, node: fx.Node) -> str:
    """`gather` and `scatter`: all operands have the axis at the same place, or only indices do."""
    found = [t for n in node.all_input_nodes for t in tensors(n.meta.get("val"))]
    source, dim = found[0], node.args[1]
    held = axis.dims(source)
    if not isinstance(dim, int) or dim % source.dim() in held:
        return f"acts along the {axis.noun}"
    if not held and op_name(node) == "aten.gather.default":
        return ""
    same = all(axis.dims(tensor) == held for tensor in found)
    return "" if same else f"picks among {axis.noun}"


def overwrites(axis: Axis, node: fx.Node) -> str:
    """`slice_scatter`, `select_scatter`: a part along another dimension is replaced."""
    source, part = _value(node, 0), _value(node, 1)
    dim = node.args[2] if len(node.args) > 2 else 0
    gone = part.dim() < source.dim()
    there = [d + int(gone and d >= dim % source.dim()) for d in axis.dims(part)]  # type: ignore[operator]
    same = axis.dims(source) == there and not axis.numbers(node)
    return along(2, 0)(axis, node) if same else f"picks among {axis.noun}"


def fills_where(axis: Axis, node: fx.Node) -> str:
    """`x[mask] = number`: every element has its own mask."""
    indices, value = node.args[1], node.args[2]
    mask = indices[0].meta["val"] if len(indices) == 1 else None  # type: ignore[index,arg-type,union-attr]
    own = mask is not None and mask.dtype == torch.bool and mask.shape == _value(node, 0).shape
    number = value.meta["val"].dim() == 0  # type: ignore[union-attr]
    return "" if own and number and not axis.numbers(node) else f"picks among {axis.noun}"


def indexes(axis: Axis, node: fx.Node) -> str:
    """`x[indices]`: one index tensor looks up a table without the axis, or another dimension."""
    places = [d for d, index in enumerate(node.args[1]) if index is not None]  # type: ignore[arg-type]
    held = axis.dims(_value(node, 0))
    if len(places) != 1 or places[0] in held:
        return f"picks among {axis.noun}"
    index = node.args[1][places[0]].meta["val"]  # type: ignore[index,union-attr]
    both = held and (axis.dims(index) or index.dtype == torch.bool)
    return f"picks among {axis.noun}" if both else ""


def repeats(axis: Axis, node: fx.Node) -> str:
    """`repeat`: what holds the axis may be copied along other dimensions."""
    source, times = _value(node, 0), list(node.args[1])  # type: ignore[arg-type]
    held = axis.dims(source)
    ahead = len(times) - source.dim()
    return "" if all(times[ahead + d] == 1 for d in held) else f"repeats the {axis.noun}"


def normalizes(axis: Axis, node: fx.Node) -> str:
    """The trailing dimensions named by `normalized_shape` are mixed."""
    source, shape = _value(node, 0), node.args[1]
    mixed = range(source.dim() - len(shape), source.dim())  # type: ignore[arg-type]
    return f"mixes the {axis.noun}" if set(mixed) & set(axis.dims(source)) else ""


def multiplies(axis: Axis, node: fx.Node) -> str:
    """The last dimension of the first operand is mixed; expert ids may go with its rows."""
    source, *others = [t for n in node.all_input_nodes for t in tensors(n.meta.get("val"))]
    held = axis.dims(source)
    if source.dim() - 1 in held:
        return f"mixes the {axis.noun}"
    allowed = [[], held] if "grouped" in op_name(node) else [[]]
    apart = all(axis.dims(tensor) in allowed for tensor in others)
    return "" if apart else f"multiplies {axis.noun} with {axis.noun}"


def products(axis: Axis, node: fx.Node) -> str:
    """Matrix products sum over the inner dimension."""
    left, right = _value(node, 0), _value(node, 1)
    inner = right.dim() - 2 if right.dim() > 1 else 0
    summed = left.dim() - 1 in axis.dims(left) or inner in axis.dims(right)
    return f"sums over the {axis.noun}" if summed else ""


def looks_up(axis: Axis, node: fx.Node) -> str:
    """`embedding(table, indices)`: indices may hold the axis, the table may not."""
    indices = node.args[0 if "quantized" in op_name(node) else 1]
    others = [n for n in node.all_input_nodes if n is not indices]
    held = any(axis.dims(t) for n in others for t in tensors(n.meta.get("val")))
    return f"picks among {axis.noun}" if held else ""


def attends(axis: Axis, node: fx.Node) -> str:
    """Attention takes [B, H, T, D]: each axis stands alone in its own place."""
    for operand in node.args[:3]:
        tensor = operand.meta["val"]  # type: ignore[union-attr]
        size = tensor.shape[axis.place]
        if axis.dims(tensor) != [axis.place] or expression(size) != axis.symbol:
            return f"does not find the {axis.noun} in dimension {axis.place}"
    sinks = node.args[9] if len(node.args) > 9 else None
    held = isinstance(sinks, fx.Node) and axis.dims(sinks.meta["val"])
    return f"has sinks that depend on the {axis.noun}" if held else ""


def _value(node: fx.Node, position: int) -> torch.Tensor:
    return node.args[position].meta["val"]  # type: ignore[union-attr]


def _first(node: fx.Node) -> list[torch.Tensor]:
    """The tensors of the first argument, which may be a list."""
    first = node.args[0]
    nodes = first if isinstance(first, list | tuple) else [first]
    return [t for n in nodes for t in tensors(n.meta["val"])]  # type: ignore[union-attr]


def _dimensions(node: fx.Node, position: int, default: Any) -> Sequence[int] | None:
    value = node.args[position] if len(node.args) > position else default
    value = node.kwargs.get("dim", node.kwargs.get("dims", value))
    if value is None or value == []:
        return None
    return [value] if isinstance(value, int) else list(value)  # type: ignore[arg-type]


def _table(**rules: tuple[Rule, str]) -> dict[str, Rule]:
    return {name: rule for rule, names in rules.values() for name in names.split()}


RULES: dict[str, Rule] = _table(
    # Token-wise although PyTorch does not tag them as pointwise.
    pointwise=(
        pointwise,
        """aten.to.dtype aten.to.device aten.to.dtype_layout aten._to_copy.default
        aten.type_as.default aten.contiguous.default aten.clone.default aten.alias.default
        aten.detach.default aten.dropout.default aten.polar.default aten.where.ScalarOther
        aten.where.ScalarSelf aten.where.Scalar
        effc.gated_activation.default""",
    ),
    rotates=(rotates, "effc.rope.default"),
    one_hot=(one_hot, "aten.one_hot.default"),
    fills=(
        fills,
        """aten.ones_like.default aten.zeros_like.default aten.full_like.default
        aten.empty_like.default aten.new_empty.default aten.empty.memory_format
        aten.zeros.default aten.ones.default aten.full.default aten.new_zeros.default
        aten.new_ones.default aten.new_full.default""",
    ),
    moves=(
        moves,
        """aten.transpose.int aten.permute.default aten.unsqueeze.default aten.squeeze.dim
        aten.squeeze.dims aten.squeeze.default aten.expand.default aten.expand_as.default
        aten.broadcast_to.default aten.swapaxes.default aten.movedim.int aten.t.default
        aten.stack.default aten.view_as_complex.default aten.view_as_real.default""",
    ),
    reshapes=(
        reshapes,
        """aten.view.default aten._unsafe_view.default aten.reshape.default
        aten.flatten.using_ints aten.unflatten.int aten.view_as.default
        aten.reshape_as.default""",
    ),
    dim_at_1=(
        along(1),
        """aten.softmax.int aten._softmax.default aten.log_softmax.int aten.sum.dim_IntList
        aten.mean.dim aten.amax.default aten.amin.default aten.max.dim aten.min.dim
        aten.argmax.default aten.any.dim aten.all.dim aten.var.correction aten.var.dim
        aten.std.correction aten.std.dim aten.logsumexp.default aten.prod.dim_int
        aten.cumsum.default aten.cumprod.default aten.narrow.default aten.select.int
        aten.index_select.default aten.flip.default""",
    ),
    first_dim_at_1=(
        along(1, 0),
        "aten.cat.default aten.concat.default aten.slice.Tensor aten.unbind.int",
    ),
    last_dim_at_1=(
        along(1, -1),
        "aten.sort.default aten.sort.stable aten.argsort.default aten.glu.default",
    ),
    dim_at_2=(
        along(2),
        """aten.norm.ScalarOpt_dim aten.linalg_vector_norm.default aten.roll.default
        aten.repeat_interleave.self_int""",
    ),
    first_dim_at_2=(
        along(2, 0),
        "aten.split.Tensor aten.split_with_sizes.default aten.chunk.default",
    ),
    last_dim_at_2=(along(2, -1), "aten.topk.default"),
    picks=(
        picks,
        "aten.gather.default aten.scatter.src aten.scatter.value aten.scatter_add.default",
    ),
    overwrites=(overwrites, "aten.slice_scatter.default aten.select_scatter.default"),
    fills_where=(fills_where, "aten.index_put.default"),
    indexes=(indexes, "aten.index.Tensor"),
    repeats=(repeats, "aten.repeat.default"),
    normalizes=(normalizes, "aten.layer_norm.default aten.rms_norm.default"),
    multiplies=(
        multiplies,
        """aten.linear.default effc.rms_norm.default effc.quantized_linear.default
        effc.grouped_linear.default effc.quantized_grouped_linear.default""",
    ),
    products=(products, "aten.matmul.default aten.bmm.default aten.mm.default"),
    attends=(attends, "effc.attention.default"),
    looks_up=(looks_up, "aten.embedding.default effc.quantized_embedding.default"),
)
