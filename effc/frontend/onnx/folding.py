"""What is known while translating: small constants, and calls that may be computed at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

# Constants up to this size are computed while importing; larger ones when the weight is loaded.
FOLDED_BYTES = 1 << 24

# Calls whose second operand may be a number, and the overload that takes it.
_WITH_NUMBER: dict[Any, Any] = {
    aten.add.Tensor: aten.add.Tensor,
    aten.sub.Tensor: aten.sub.Tensor,
    aten.mul.Tensor: aten.mul.Tensor,
    aten.div.Tensor: aten.div.Tensor,
    aten.eq.Tensor: aten.eq.Scalar,
    aten.ne.Tensor: aten.ne.Scalar,
    aten.lt.Tensor: aten.lt.Scalar,
    aten.le.Tensor: aten.le.Scalar,
    aten.gt.Tensor: aten.gt.Scalar,
    aten.ge.Tensor: aten.ge.Scalar,
    aten.pow.Tensor_Tensor: aten.pow.Tensor_Scalar,
}
_COMMUTATIVE = (aten.add.Tensor, aten.mul.Tensor, aten.eq.Tensor, aten.ne.Tensor)


def nodes_of(value: Any) -> list[fx.Node]:
    found: list[fx.Node] = []
    fx.map_arg(value, found.append)
    return found


def map_values(function: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map_values(function, item) for item in value)
    if isinstance(value, dict):
        return {key: map_values(function, item) for key, item in value.items()}
    return function(value)


def leaves_of(value: Any) -> list[Any]:
    """Everything in nested arguments that may have symbolic sizes."""
    if isinstance(value, list | tuple):
        return [leaf for item in value for leaf in leaves_of(item)]
    if isinstance(value, dict):
        return leaves_of(list(value.values()))
    return [value] if isinstance(value, torch.Tensor | torch.SymInt | torch.SymFloat) else []


def is_small(value: Any) -> bool:
    leaves = [leaf for leaf in leaves_of(value) if isinstance(leaf, torch.Tensor)]
    return sum(leaf.nbytes for leaf in leaves) <= FOLDED_BYTES


def grows(target: Any, args: Any, kwargs: Any) -> bool:
    """Whether a call of small constants has a large result, told by its shape function."""
    args, kwargs = map_values(_without_values, args), map_values(_without_values, kwargs)
    if "device" not in kwargs and not any(isinstance(a, torch.Tensor) for a in leaves_of(args)):
        kwargs = {**kwargs, "device": "meta"}
    try:
        result = target(*args, **kwargs)
    except Exception:  # shapes that depend on values are those of small inputs
        return False
    found = [leaf for leaf in leaves_of(result) if isinstance(leaf, torch.Tensor)]
    return sum(leaf.numel() * leaf.itemsize for leaf in found) > FOLDED_BYTES


def _without_values(value: Any) -> Any:
    return value.to("meta") if isinstance(value, torch.Tensor) else value


def number_operand(target: Any, args: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """A one-element constant as a Python number, where that means the same."""
    if target not in _WITH_NUMBER or len(args) < 2:
        return target, args
    left, right, *rest = args
    if isinstance(left, torch.Tensor) and target in _COMMUTATIVE:
        left, right = right, left
    fake = left.meta.get("val") if isinstance(left, fx.Node) else None
    fits = (
        isinstance(right, torch.Tensor)
        and isinstance(fake, torch.Tensor)
        and right.numel() == 1
        and right.dtype == fake.dtype
        and right.dim() <= fake.dim()
    )
    if not fits:
        return target, args
    return _WITH_NUMBER[target], (left, right.item(), *rest)


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
