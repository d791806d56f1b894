"""Sizes that a file leaves open and its own operators settle.

Exporters declare sizes as free that a graph holds for only one value of: a convolution of three
channels says what `num_channels` is, and a sum of scores and mask says that the mask is as long as
past and new tokens together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from effc.frontend.onnx.values import Mismatch

aten = torch.ops.aten

SizeValue = int | torch.SymInt
Pair = tuple[SizeValue, SizeValue]
Settled = dict[str, int | tuple[str, ...]]
"""Size name -> its one value, or the names of the sizes that it is the sum of."""

_CONVOLUTIONS = {
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv3d.default,
    aten.conv1d.padding,
    aten.conv2d.padding,
    aten.conv3d.padding,
}
_PRODUCTS = {aten.matmul.default: -2, aten.mm.default: -2, aten.linear.default: -1}


def settle(
    target: Any, args: tuple[Any, ...], names: Mapping[str, str], suggested: Mapping[str, int]
) -> Settled:
    """What a refused call says about the sizes of its arguments.

    Args:
        target: the operator.
        args: its fake arguments.
        names: symbol -> size name.
        suggested: size name -> what the files beside the model say.

    Returns:
        Empty when nothing can be told.

    Raises:
        Mismatch: the call cannot hold for any sizes.
    """
    for left, right in _needed_equal(target, args):
        if isinstance(left, int) and isinstance(right, int):
            raise Mismatch(f"sizes {left} and {right} meet where they must be equal")
        for a, b in ((left, right), (right, left)):
            found = _solve(a, b, names, suggested)
            if found:
                return found
    return {}


def _needed_equal(target: Any, args: tuple[Any, ...]) -> Iterator[Pair]:
    """Pairs of sizes that must be equal for a call to make sense, and are not known to be."""
    pairs: Iterator[Pair] = iter(())
    if target in _CONVOLUTIONS:
        pairs = _channels(args)
    elif target in _PRODUCTS:
        pairs = iter([(args[0].shape[-1], args[1].shape[_PRODUCTS[target]])])
    elif target is aten.cat.default:
        pairs = _joined(args)
    elif target is aten.expand.default:
        pairs = _aligned([tuple(args[0].shape), tuple(s for s in args[1])])
    elif torch.Tag.pointwise in getattr(target, "tags", ()):
        pairs = _aligned([tuple(a.shape) for a in args if isinstance(a, torch.Tensor)])
    return (pair for pair in pairs if _text(pair[0]) != _text(pair[1]))


def _channels(args: tuple[Any, ...]) -> Iterator[Pair]:
    x, weight, *rest = args
    groups = rest[4] if len(rest) > 4 else 1
    if isinstance(groups, int):
        yield x.shape[1], weight.shape[1] * groups


def _joined(args: tuple[Any, ...]) -> Iterator[Pair]:
    first, *others = args[0]
    dim = (args[1] if len(args) > 1 else 0) % max(first.dim(), 1)
    for other in others:
        for d, pair in enumerate(zip(first.shape, other.shape, strict=False)):
            if d != dim:
                yield pair


def _aligned(shapes: list[tuple[Any, ...]]) -> Iterator[Pair]:
    """Sizes that meet when shapes are broadcast against the right."""
    for shape in shapes[1:]:
        for a, b in zip(reversed(shapes[0]), reversed(shape), strict=False):
            if _text(a) not in ("1", "-1") and _text(b) not in ("1", "-1"):
                yield a, b


def _solve(
    unknown: SizeValue, known: SizeValue, names: Mapping[str, str], suggested: Mapping[str, int]
) -> Settled:
    """The size behind `unknown`, if it is a single one and `known` says what it is."""
    name = names.get(_text(unknown))
    if name is not None and not isinstance(known, torch.SymInt):
        return {name: int(known)}
    if name is not None and isinstance(known, torch.SymInt):
        terms = _terms(known, names)
        return {name: terms} if terms and name not in terms else {}
    if isinstance(unknown, torch.SymInt):
        used = [names[s] for s in map(str, unknown.node.expr.free_symbols) if s in names]
        return {size: suggested[size] for size in used if size in suggested}
    return {}


def _terms(value: torch.SymInt, names: Mapping[str, str]) -> tuple[str, ...]:
    """The sizes that a value is the plain sum of."""
    parts = value.node.expr.as_ordered_terms()
    found = [names.get(str(part)) for part in parts]
    return () if None in found else tuple(found)  # type: ignore[arg-type]


def _text(size: object) -> str:
    return str(size.node.expr) if isinstance(size, torch.SymInt) else str(size)
