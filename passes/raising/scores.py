"""Read masked, scaled scores backwards, from the softmax to the product of queries and keys.

scores = softcap(scale * q @ k^T) + mask
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, replace
from typing import Any

from torch import fx

from effc.ir.pattern import CASTS, op_name
from effc.passes.normalize.shapes import is_last, same_shape

PRODUCTS = ("aten.matmul.default", "aten.bmm.default")
# Below this, a score's weight is zero beside any score that is not masked itself.
HIDDEN = -1e4


@dataclass(frozen=True)
class Hidden:
    """Scores that a fill value replaces.

    Attributes:
        where: boolean node.
        visible: what `where` says of the scores that stay.
        fill: the value of the others.
    """

    where: fx.Node
    visible: bool
    fill: float


@dataclass(frozen=True)
class Added:
    """A mask that is added to the scores, `factor` times."""

    mask: fx.Node
    factor: float = 1.0


@dataclass(frozen=True)
class Scores:
    """What the scores of an attention are made of.

    Attributes:
        product: queries times transposed keys.
        scale: factor of the product.
        softcap: bound of the scores, if they have one.
        masks: what is added and what is filled in, from the outside to the inside.
    """

    product: fx.Node
    scale: float = 1.0
    softcap: float | None = None
    masks: tuple[Added | Hidden, ...] = ()


def read_scores(node: fx.Node) -> Scores | str:
    """The parts of scores, or the first edge that is none of theirs."""
    node = unshifted(strip_casts(node))
    for kept, hidden in _fills(node):
        if not hidden.fill <= HIDDEN:
            return f"{node.name} fills in {hidden.fill}, which does not hide a key"
        return _with_mask(read_scores(kept), hidden, node)
    if op_name(node) == "aten.add.Tensor" and not node.kwargs:
        return _sum(node)
    factor, inner = strip_scale(node)
    if factor > 0 and (op_name(inner) == "aten.add.Tensor" or _fills(inner)):
        found = read_scores(inner)
        return found if isinstance(found, str) else _times(found, factor)
    return _capped(node)


def _times(scores: Scores, factor: float) -> Scores:
    """The scores with a factor outside of their masks."""
    masks = [
        replace(m, fill=m.fill * factor)
        if isinstance(m, Hidden)
        else replace(m, factor=m.factor * factor)
        for m in scores.masks
    ]
    cap = scores.softcap and scores.softcap * factor
    return Scores(scores.product, scores.scale * factor, cap, tuple(masks))


def _sum(node: fx.Node) -> Scores | str:
    """Scores plus a mask, whichever comes first."""
    answers: list[Scores | str] = []
    for scores, mask in (node.args, node.args[::-1]):
        if not isinstance(scores, fx.Node) or not isinstance(mask, fx.Node):
            return f"{node.name} adds a number to the scores"
        found = read_scores(scores)
        if isinstance(found, Scores):
            if not mask.meta["val"].is_floating_point():
                return f"the mask {mask.name} is added but holds no floats"
            return _with_mask(found, Added(mask), node)
        answers.append(found)
    return answers[0]


def _with_mask(inner: Scores | str, mask: Added | Hidden, node: fx.Node) -> Scores | str:
    if isinstance(inner, str):
        return inner
    if not same_shape(node, inner.product):
        return f"the mask of {node.name} is broader than the scores"
    return replace(inner, masks=(mask, *inner.masks))


def _fills(node: fx.Node) -> list[tuple[fx.Node, Hidden]]:
    """(scores that stay, what hides the others) if the node fills in a number."""
    args: Any = node.args
    match op_name(node):
        case "aten.masked_fill.Scalar":
            return [(args[0], Hidden(args[1], False, args[2]))]
        case "aten.where.ScalarOther":
            return [(args[1], Hidden(args[0], True, args[2]))]
        case "aten.where.ScalarSelf":
            return [(args[2], Hidden(args[0], False, args[1]))]
    return []


def _capped(node: fx.Node) -> Scores | str:
    """cap * tanh(x / cap), or x itself."""
    factor, inner = strip_scale(node)
    if op_name(inner) != "aten.tanh.default":
        return _scaled(node)
    shrink, inner = strip_scale(inner.args[0])  # type: ignore[arg-type]
    found = _scaled(inner)
    if isinstance(found, str):
        return found
    # Either factor may have been rounded to the scores' type on its own.
    if not math.isclose(factor * shrink * found.scale, found.scale, rel_tol=1e-6):
        return replace(found, scale=found.scale * shrink * factor, softcap=factor)
    return replace(found, softcap=factor)


def _scaled(node: fx.Node) -> Scores | str:
    """A product whose result and factors may be scaled."""
    scale, product = strip_scale(node)
    if op_name(product) not in PRODUCTS:
        name = op_name(product) or product.op
        return f"found {name} ({product.name}), not a product of queries and keys"
    return Scores(product, scale)


def strip_scale(node: fx.Node) -> tuple[float, fx.Node]:
    """A node without the numbers that multiply it, and their product; casts go as well."""
    factor = 1.0
    node = strip_casts(node)
    while op_name(node) in ("aten.mul.Tensor", "aten.div.Tensor") and not node.kwargs:
        inner, number = node.args
        if not isinstance(inner, fx.Node) or not _is_factor(number):
            break
        factor = factor / number if op_name(node) == "aten.div.Tensor" else factor * number  # type: ignore[operator]
        node = strip_casts(inner)
    return factor, node


def _is_factor(number: object) -> bool:
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    return is_number and math.isfinite(number) and number != 0  # type: ignore[arg-type]


def strip_casts(node: fx.Node) -> fx.Node:
    """A node without its conversions between floating-point types."""
    while op_name(node) in CASTS and _is_float(node) and _is_float(node.args[0]):  # type: ignore[arg-type]
        node = node.args[0]  # type: ignore[assignment]
    return node


def _is_float(node: fx.Node) -> bool:
    return node.meta["val"].is_floating_point()


def unshifted(node: fx.Node) -> fx.Node:
    """x, where the node is x - max(x): a softmax does not see the difference."""
    if op_name(node) != "aten.sub.Tensor" or node.kwargs:
        return node
    inner, top = node.args
    if isinstance(top, fx.Node) and top.target is operator.getitem and top.args[1] == 0:
        top = top.args[0]
    named = isinstance(top, fx.Node) and op_name(top) in ("aten.max.dim", "aten.amax.default")
    if not named or top.args[0] is not inner or len(top.args) < 3 or not top.args[2]:  # type: ignore[union-attr]
        return node
    dims: Any = top.args[1] if isinstance(top.args[1], list) else [top.args[1]]  # type: ignore[union-attr]
    return inner if len(dims) == 1 and is_last(dims[0], inner) else node  # type: ignore[arg-type, return-value]
