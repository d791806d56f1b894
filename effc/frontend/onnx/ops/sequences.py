"""Sequences and optionals.

A sequence that is built in the graph is a Python list while translating and leaves no trace. One
that a caller passes, or that a branch returns, is a list at run time: a node with
`meta["content"]`, on which the program uses Python's own indexing and concatenation.
"""

from __future__ import annotations

import operator
from typing import Any

import onnx_ir
import torch
from torch import fx

from effc.frontend.onnx.branches import content_of, inline
from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.table import Translation
from effc.frontend.onnx.values import Content, Mismatch, Size, Unsupported, Value

aten = torch.ops.aten


def element(g: Builder, content: Content, target: Any, *args: Any) -> fx.Node:
    """A call that gives one tensor of a run-time sequence or optional."""
    shape = content.shape
    node = g.emit_as(None if shape is None else g.unknown(content.dtype, shape), target, *args)
    if shape is None:
        node.meta["dtype"] = content.dtype
    return node


def listed(g: Builder, content: Content, target: Any, *args: Any) -> fx.Node:
    """A call that gives a run-time sequence."""
    node = g.emit_as(None, target, *args)
    node.meta["content"] = content
    return node


def construct(g: Builder, *inputs: Value) -> Value:
    """SequenceConstruct."""
    return list(inputs)


def empty(g: Builder, *, dtype: int = 1) -> Value:
    """SequenceEmpty: elements come later, with their type."""
    return []


def length(g: Builder, sequence: Value) -> Value:
    """SequenceLength."""
    return g.sizes(_length(g, sequence))


def _length(g: Builder, sequence: Value) -> Size:
    if isinstance(sequence, list):
        return len(sequence)
    _need_list(sequence)
    # The length of a list, by the name that the operator module has for it.
    return g.emit_as(g.unknown_size(), operator.length_hint, sequence)


def at(g: Builder, sequence: Value, position: Value) -> Value:
    """SequenceAt."""
    index = g.int(position)
    if isinstance(sequence, list) and isinstance(index, int):
        if not -len(sequence) <= index < len(sequence):
            raise Mismatch(f"element {index} of a sequence of {len(sequence)}")
        return sequence[index]
    sequence = _at_run_time(g, sequence)
    return element(g, sequence.meta["content"], operator.getitem, sequence, index)


def insert(g: Builder, sequence: Value, tensor: Value, position: Value = None) -> Value:
    """SequenceInsert: before `position`, at the end when it is absent."""
    index = None if position is None else g.int(position)
    if isinstance(sequence, list) and not isinstance(index, fx.Node):
        index = len(sequence) if index is None else index
        if not -len(sequence) <= index <= len(sequence):
            raise Mismatch(f"position {index} in a sequence of {len(sequence)}")
        return [*sequence[:index], tensor, *sequence[index:]] if index else [tensor, *sequence]
    sequence = _at_run_time(g, sequence)
    content = sequence.meta["content"]
    added = [g.node(tensor)]
    if index is None:
        return listed(g, content, operator.add, sequence, added)
    before = listed(g, content, operator.getitem, sequence, slice(None, index))
    after = listed(g, content, operator.getitem, sequence, slice(index, None))
    return listed(g, content, operator.add, listed(g, content, operator.add, before, added), after)


def erase(g: Builder, sequence: Value, position: Value = None) -> Value:
    """SequenceErase: the last element when `position` is absent."""
    index = -1 if position is None else g.int(position)
    if isinstance(sequence, list) and isinstance(index, int):
        if not -len(sequence) <= index < len(sequence):
            raise Mismatch(f"element {index} of a sequence of {len(sequence)}")
        kept = index % len(sequence)
        return [*sequence[:kept], *sequence[kept + 1 :]]
    sequence = _at_run_time(g, sequence)
    content = sequence.meta["content"]
    first = g.arith(operator.mod, index, _length(g, sequence))
    before = listed(g, content, operator.getitem, sequence, slice(None, first))
    rest = g.arith(operator.add, first, 1)
    after = listed(g, content, operator.getitem, sequence, slice(rest, None))
    return listed(g, content, operator.add, before, after)


def concatenate(g: Builder, sequence: Value, *, axis: int, new_axis: int = 0) -> Value:
    """ConcatFromSequence: along an axis, or a new one."""
    target = aten.stack.default if new_axis else aten.cat.default
    if isinstance(sequence, list):
        return g.call(target, sequence, axis)
    content = _need_list(sequence)
    node = g.emit_as(None, target, sequence, axis)
    if content.shape is not None:
        shape: list[int | None] = list(content.shape)
        if new_axis:
            shape.insert(axis % (len(shape) + 1), None)
        else:
            shape[axis] = None
        node.meta["val"] = g.unknown(content.dtype, shape)
    node.meta["dtype"] = content.dtype
    return node


def split(g: Builder, x: Value, sizes: Value = None, *, axis: int = 0, keepdims: int = 1) -> Value:
    """SplitToSequence: into pieces of one size, of given sizes, or of size one."""
    extent = g.size(x, axis)
    if sizes is None:
        if not isinstance(extent, int):
            return _split_open(g, x, 1, axis, bool(keepdims))
        pieces = [g.call(aten.narrow.default, x, axis, i, 1) for i in range(extent)]
        return pieces if keepdims else [g.call(aten.squeeze.dim, p, axis) for p in pieces]
    if g.rank(sizes) == 0:
        size = g.int(sizes)
        if not isinstance(extent, int) or not isinstance(size, int):
            return _split_open(g, x, size, axis, True)
        if size < 1:
            raise Mismatch(f"pieces of size {size}")
        starts = range(0, extent, size)
        parts = [(start, min(size, extent - start)) for start in starts]
        return [g.call(aten.narrow.default, x, axis, start, size) for start, size in parts]
    lengths = g.ints(sizes)
    known = [size for size in lengths if isinstance(size, int)]
    if len(known) == len(lengths) and isinstance(extent, int) and sum(known) != extent:
        raise Mismatch(f"pieces of {known} out of {extent}")
    pieces = g.emit(aten.split_with_sizes.default, g.node(x), lengths, axis)
    return list(g.items(pieces, len(lengths)))


def _split_open(g: Builder, x: Value, size: Size, axis: int, keepdims: bool) -> fx.Node:
    """Pieces whose number is only known at run time."""
    shape: list[int | None] = [s if isinstance(s, int) else None for s in g.shape(x)]
    shape[axis] = None
    if not keepdims:
        del shape[axis]
        return listed(g, Content(g.dtype(x), shape, True), aten.unbind.int, g.node(x), axis)
    content = Content(g.dtype(x), shape, True)
    return listed(g, content, aten.split.Tensor, g.node(x), size, axis)


def apply(
    g: Builder, sequence: Value, *additional: Value, body: onnx_ir.Graph
) -> tuple[Value, ...]:
    """SequenceMap: the body on every element; other sequences go along, tensors stay."""
    if not isinstance(sequence, list) or any(content_of(value) for value in additional):
        raise Unsupported("the number of elements is only known at run time")
    rounds = []
    for i, item in enumerate(sequence):
        others = [value[i] if isinstance(value, list) else value for value in additional]
        rounds.append(inline(g, body, [item, *others]))
    return tuple([results[k] for results in rounds] for k in range(len(body.outputs)))


def optional(g: Builder, x: Value = None, *, type: Any = None) -> Value:
    """Optional: the value itself, or nothing."""
    return x


def get(g: Builder, x: Value) -> Value:
    """OptionalGetElement."""
    content = content_of(x)
    if x is None:
        raise Mismatch("an optional without a value has no element")
    if content is None:
        return x
    if content.sequence:
        return x
    return element(g, content, aten.alias.default, x)


def has(g: Builder, x: Value = None) -> Value:
    """OptionalHasElement."""
    if content_of(x) is None:
        return torch.tensor(x is not None)
    present = g.emit_as(g.unknown_size(), operator.is_not, x, None)
    return g.emit(aten.scalar_tensor.default, present, dtype=torch.bool)


def _need_list(sequence: Value) -> Content:
    content = content_of(sequence)
    if content is None or not content.sequence:
        raise Unsupported("a sequence is needed, not a tensor or an absent value")
    return content


def _at_run_time(g: Builder, sequence: Value) -> fx.Node:
    """A sequence as a node; its elements must have one type."""
    if not isinstance(sequence, list):
        _need_list(sequence)
        assert isinstance(sequence, fx.Node)
        return sequence
    raise Unsupported("a position in a sequence is only known at run time")


TABLE: dict[str, Translation] = {
    "ConcatFromSequence": concatenate,
    "Optional": optional,
    "OptionalGetElement": get,
    "OptionalHasElement": has,
    "SequenceAt": at,
    "SequenceConstruct": construct,
    "SequenceEmpty": empty,
    "SequenceErase": erase,
    "SequenceInsert": insert,
    "SequenceLength": length,
    "SequenceMap": apply,
    "SplitToSequence": split,
}
