"""Operators that change the shape or the order of elements, not their values."""

from __future__ import annotations

import operator
from functools import reduce
from typing import Any

import torch
from torch import fx

from effc.frontend.onnx.builder import Builder
from effc.frontend.onnx.ops.unsigned import by_bits, known_dtype
from effc.frontend.onnx.table import Translation
from effc.frontend.onnx.values import Mismatch, Size, Value

aten = torch.ops.aten


def identity(g: Builder, x: Value) -> Value:
    """The value itself, a sequence or an absent one too."""
    return x


def shape_of(g: Builder, x: Value, start: int = 0, end: int | None = None) -> Value:
    """The shape of a tensor whose rank is only known at run time."""
    shape = g.call(aten._shape_as_tensor.default, x)
    if start == 0 and end is None:
        return shape
    return g.call(aten.slice.Tensor, shape, 0, start, end)


def size_of(g: Builder, x: Value) -> Value:
    """The number of elements of a tensor whose rank is only known at run time."""
    return g.call(aten.prod.default, g.call(aten._shape_as_tensor.default, x))


def product(g: Builder, sizes: list[Size]) -> Size:
    """The product of sizes."""
    factors = [size for size in sizes if size != 1]
    return reduce(lambda a, b: g.arith(operator.mul, a, b), factors) if factors else 1


def is_read(size: Size) -> bool:
    """Whether a number comes from a tensor at run time, so that it may be 0 or negative."""
    return isinstance(size, fx.Node) and size.target is aten.item.default


def choose(g: Builder, condition: Any, a: Size, b: Size, *, positive: bool = False) -> Size:
    """One of two numbers, where only run time shows which.

    torch wants both to be of one kind, so a known one becomes a node. The result is a number of
    its own: torch's reasoning about sizes has no case distinctions.
    """
    if not isinstance(condition, fx.Node):
        return a if condition else b
    some = next((n for n in (a, b, *condition.args) if isinstance(n, fx.Node)), condition)

    def node(size: Size) -> Size:
        if isinstance(size, fx.Node):
            return size
        return g.emit(operator.add, g.emit(operator.mul, some, 0), size)

    value = g.unknown_size() if positive else g.unknown_number()
    return g.emit_as(value, torch.sym_ite, condition, node(a), node(b))


def normalized(g: Builder, axis: Size, rank: int) -> Size:
    """An axis counted from the front."""
    if isinstance(axis, int):
        if not -rank <= axis < rank:
            raise Mismatch(f"axis {axis} of a tensor of rank {rank}")
        return axis % rank
    negative = g.arith(operator.lt, axis, 0)
    return choose(g, negative, g.arith(operator.add, axis, rank), axis)


def reshape(g: Builder, x: Value, shape: Any = None, allowzero: int = 0) -> Value:
    """0 keeps a size (unless `allowzero`), one -1 is found from the others."""
    wanted = g.ints(shape)
    if not allowzero:
        wanted = [_kept(g, x, i, size) for i, size in enumerate(wanted)]
    if 0 in wanted and -1 in wanted:
        raise Mismatch("a size cannot be found beside a size of 0")
    return reshaped(g, x, wanted)


def _kept(g: Builder, x: Value, dim: int, size: Size) -> Size:
    if size == 0 and isinstance(size, int):
        return g.size(x, dim)
    if not is_read(size) or dim >= g.rank(x):
        return size
    return choose(g, g.arith(operator.eq, size, 0), g.size(x, dim), size)


def reshaped(g: Builder, x: Value, shape: list[Size]) -> Value:
    """`aten.reshape`, or nothing where the shape is the present one."""
    fake = x.meta.get("val") if isinstance(x, fx.Node) else x
    if isinstance(fake, torch.Tensor) and fake.dim() == len(shape):
        same = [a == b for a, b in zip(g.shape(x), shape, strict=True)]
        # One size that is to be found, beside sizes that stay, stays as well.
        if all(same) or (same.count(False) == 1 and shape[same.index(False)] == -1):
            return x
    return g.typed(g.call(aten.reshape.default, x, shape), known_dtype(g, x), len(shape))


def flatten(g: Builder, x: Value, axis: int = 1) -> Value:
    """A matrix; `axis` is the first dimension of its columns."""
    shape = g.shape(x)
    if not -len(shape) <= axis <= len(shape):
        raise Mismatch(f"axis {axis} of a tensor of rank {len(shape)}")
    axis = axis + len(shape) if axis < 0 else axis
    rows, columns = shape[:axis], shape[axis:]
    if _known(rows):
        return reshaped(g, x, [product(g, rows), -1])
    return reshaped(g, x, [-1 if _known(columns) else product(g, rows), product(g, columns)])


def _known(sizes: list[Size]) -> bool:
    """Whether a product of sizes is known and not 0, so that the other one can be found."""
    return all(isinstance(size, int) and size > 0 for size in sizes)


def transpose(g: Builder, x: Value, perm: list[int] | None = None) -> Value:
    """`aten.permute`; by default all dimensions are reversed."""
    rank = g.rank(x)
    order = list(range(rank))[::-1] if perm is None else [d % rank for d in perm]
    return x if order == list(range(rank)) else g.call(aten.permute.default, x, order)


def concat(g: Builder, *parts: Value, axis: int = 1) -> Value:
    """`aten.cat`."""
    if len(parts) == 1:
        return parts[0]
    return g.call(aten.cat.default, list(parts), axis)


def split(
    g: Builder, x: Value, split: Any = None, axis: int = 0, num_outputs: int | None = None
) -> tuple[Value, ...]:
    """Parts of given sizes, or as many equal ones (the last is smaller) as there are outputs."""
    count = num_outputs or len(g.wanted)
    parts = _equal_parts(g, g.size(x, axis), count) if split is None else g.ints(split)
    if len(parts) == 1:
        return (x,)
    found = g.call(aten.split_with_sizes.default, x, parts, axis)
    return tuple(g.items(found, len(parts)) if isinstance(found, fx.Node) else found)


def _equal_parts(g: Builder, size: Size, count: int) -> list[Size]:
    up = g.arith(operator.add, size, count - 1)
    part = g.arith(operator.floordiv, up, count)
    rest = g.arith(operator.sub, size, g.arith(operator.mul, part, count - 1))
    return [*[part] * (count - 1), rest]


def squeeze(g: Builder, x: Value, axes: Any = None) -> Value:
    """Leave out dimensions of size 1: those named, else all."""
    if axes is None:
        return g.call(aten.squeeze.default, x)
    dims = g.ints(axes)
    if len(dims) == 1:
        return g.call(aten.squeeze.dim, x, dims[0])
    return g.call(aten.squeeze.dims, x, dims) if dims else x


def unsqueeze(g: Builder, x: Value, axes: Any = None) -> Value:
    """Put in dimensions of size 1, so that the result has them at `axes`."""
    dims = g.ints(axes)
    if len(dims) == 1:
        return g.call(aten.unsqueeze.default, x, dims[0])
    rank = g.rank(x) + len(dims)
    for dim in ascending(g, [normalized(g, dim, rank) for dim in dims]):
        x = g.call(aten.unsqueeze.default, x, dim)
    return x


def ascending(g: Builder, numbers: list[Size]) -> list[Size]:
    """Sorted numbers, with one compare-exchange per pair where they are not known."""
    known = [n for n in numbers if isinstance(n, int)]
    if len(known) == len(numbers):
        return sorted(known)  # type: ignore[return-value]
    found = list(numbers)
    for end in range(len(found) - 1, 0, -1):
        for i in range(end):
            low = g.arith(torch.sym_min, found[i], found[i + 1])
            high = g.arith(torch.sym_max, found[i], found[i + 1])
            found[i], found[i + 1] = low, high
    return found


def expand(g: Builder, x: Value, shape: Value) -> Value:
    """Broadcast a tensor and a shape to each other; either may have the larger sizes."""
    wanted, own = g.ints(shape), g.shape(x)
    missing = len(wanted) - len(own)
    wanted = [1] * -missing + wanted
    present = [None] * missing + own
    found = [_broadcast(g, a, b) for a, b in zip(present, wanted, strict=True)]
    if missing <= 0 and all(size == -1 for size in found):
        return x
    if any(isinstance(n, fx.Node) and n.target is torch.sym_ite for n in found):
        # The shape function would take the chosen size for the one that is there.
        sizes = zip(present, found, strict=True)
        there: list[Any] = [_typed(own if n == -1 else n) for own, n in sizes]
        return g.emit_as(g.unknown(g.dtype(x), there), aten.expand.default, x, found)
    return g.typed(g.call(aten.expand.default, x, found), known_dtype(g, x), len(found))


def _typed(size: Any) -> Any:
    """A size for a fake tensor, None when it is not known to torch."""
    return size.meta["val"] if isinstance(size, fx.Node) else size


def _broadcast(g: Builder, own: Size | None, wanted: Size) -> Size:
    """What `aten.expand` is asked for; -1 keeps a size."""
    if own is None:
        return wanted
    if own == wanted or wanted == 1 or (isinstance(own, int) and own != 1):
        if isinstance(own, int) and isinstance(wanted, int) and wanted not in (1, own):
            raise Mismatch(f"a size of {own} cannot be broadcast to {wanted}")
        return -1
    if own == 1 or isinstance(wanted, int):
        return wanted
    return choose(g, g.arith(operator.eq, own, 1), wanted, own, positive=True)


def tile(g: Builder, x: Value, repeats: Value) -> Value:
    """`aten.repeat`."""
    counts = g.ints(repeats)
    return g.typed(g.call(aten.repeat.default, x, counts), known_dtype(g, x), len(counts))


def depth_to_space(g: Builder, x: Value, blocksize: int = 1, mode: str = "DCR") -> Value:
    """Channels become blocks of pixels."""
    if mode == "CRD":
        return g.call(aten.pixel_shuffle.default, x, blocksize)
    if mode != "DCR":
        raise Mismatch(f"the mode is DCR or CRD, not {mode!r}")
    n, channels, height, width = g.shape(x)
    depth = g.arith(operator.floordiv, channels, blocksize**2)
    apart = reshaped(g, x, [n, blocksize, blocksize, depth, height, width])
    turned = g.call(aten.permute.default, apart, [0, 3, 4, 1, 5, 2])
    tall, wide = (g.arith(operator.mul, size, blocksize) for size in (height, width))
    return reshaped(g, turned, [n, depth, tall, wide])


def space_to_depth(g: Builder, x: Value, blocksize: int = 1, mode: str = "DCR") -> Value:
    """Blocks of pixels become channels, in the order that `depth_to_space` takes."""
    if mode == "CRD":
        return g.call(aten.pixel_unshuffle.default, x, blocksize)
    if mode != "DCR":
        raise Mismatch(f"the mode is DCR or CRD, not {mode!r}")
    n, channels, height, width = g.shape(x)
    low, narrow = (g.arith(operator.floordiv, size, blocksize) for size in (height, width))
    apart = reshaped(g, x, [n, channels, low, blocksize, narrow, blocksize])
    turned = g.call(aten.permute.default, apart, [0, 3, 5, 1, 2, 4])
    depth = g.arith(operator.mul, channels, blocksize**2)
    return reshaped(g, turned, [n, depth, low, narrow])


def trilu(g: Builder, x: Value, k: Value = None, upper: int = 1) -> Value:
    """The upper or lower triangle; the rest is 0."""
    diagonal = 0 if k is None else g.int(k)
    return g.call(aten.triu.default if upper else aten.tril.default, x, diagonal)


TABLE: dict[str, Translation] = {
    "Concat": concat,
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "Flatten": flatten,
    "Identity": identity,
    "Reshape": reshape,
    "Shape": shape_of,
    "Size": size_of,
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Squeeze": squeeze,
    "Tile": tile,
    "Transpose": transpose,
    "Trilu": by_bits(trilu),
    "Unsqueeze": unsqueeze,
}
