"""Types of nodes as text: symbolic sizes by the names that the stage's inputs give them."""

from __future__ import annotations

import re

import torch
from torch import fx

from effc.ir import sizes
from effc.ir.program import Stage

Size = int | str


def symbol_names(stage: Stage) -> dict[str, str]:
    """Symbols of the shape environment -> the names of the stage's symbolic sizes."""
    names: dict[str, str] = {}
    for spec in stage.inputs:
        value = stage.placeholder(spec.name).meta.get("val")
        if isinstance(value, torch.Tensor):
            for size, name in zip(value.shape, spec.shape, strict=True):
                if isinstance(size, torch.SymInt) and isinstance(name, str):
                    names.setdefault(str(size.node.expr), name)
    return names


def shape_of(node: fx.Node, names: dict[str, str]) -> tuple[Size, ...] | None:
    """The shape of a node's tensor, from its value or from what the artifact says."""
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor):
        return tuple(sizes.of_value(size, names) for size in value.shape)
    shape = node.meta.get("shape")
    return tuple(shape) if shape is not None else None


def dtype_of(node: fx.Node) -> str | None:
    """The element type of a node's tensor, e.g. "float32"."""
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor):
        return str(value.dtype).removeprefix("torch.")
    dtype = node.meta.get("dtype")
    return None if dtype is None else str(dtype).removeprefix("torch.")


SYMBOLIC = {torch.SymInt: "int", torch.SymFloat: "float", torch.SymBool: "bool"}
"""Types of computed sizes, by the names that texts and artifacts give them."""


def annotation(node: fx.Node, names: dict[str, str]) -> str:
    """`[B, T, 64] float32`, `int` for a computed size, an empty text for what has neither."""
    shape = shape_of(node, names)
    if shape is not None:
        return f"[{', '.join(map(str, shape))}] {dtype_of(node) or ''}".rstrip()
    symbolic = SYMBOLIC.get(type(node.meta.get("val")), node.meta.get("dtype"))
    return str(symbolic or "")


def layer_of(path: str) -> int | None:
    """The layer index in a module path: its first numeric part."""
    found = re.search(r"(?:^|\.)(\d+)(?:\.|$)", path)
    return int(found[1]) if found else None
