"""Which operators keep tokens apart.

A cache may be inserted only if attention is the one place where tokens meet: everything else must
give token t the same result whether its neighbours are in the call or not. The analysis follows
the symbolic size T through the shapes: an operator that reduces, cuts, orders or pairs along a
dimension that holds T, or whose meaning is unknown, is an obstacle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sympy
import torch
from torch import fx

from effc.ir.pattern import op_name
from effc.ir.program import Stage

# Token-wise although PyTorch does not tag them as pointwise.
_POINTWISE = {
    "aten.to.dtype",
    "aten.to.device",
    "aten.to.dtype_layout",
    "aten._to_copy.default",
    "aten.type_as.default",
    "aten.contiguous.default",
    "aten.clone.default",
    "aten.alias.default",
    "aten.detach.default",
    "aten.dropout.default",
    "aten.one_hot.default",
    "effc.rope.default",
    "effc.gated_activation.default",
}
_FILLS = {
    "aten.ones_like.default",
    "aten.zeros_like.default",
    "aten.full_like.default",
    "aten.empty_like.default",
    "aten.zeros.default",
    "aten.ones.default",
    "aten.full.default",
    "aten.new_zeros.default",
    "aten.new_ones.default",
    "aten.new_full.default",
}
_MOVES = {
    "aten.transpose.int",
    "aten.permute.default",
    "aten.unsqueeze.default",
    "aten.squeeze.dim",
    "aten.squeeze.dims",
    "aten.squeeze.default",
    "aten.expand.default",
    "aten.t.default",
}
_RESHAPES = {
    "aten.view.default",
    "aten._unsafe_view.default",
    "aten.reshape.default",
    "aten.flatten.using_ints",
    "aten.unflatten.int",
}
# Operator -> position of its dimension argument, and the default.
_ALONG: dict[str, tuple[int, Any]] = {
    "aten.softmax.int": (1, None),
    "aten._softmax.default": (1, None),
    "aten.log_softmax.int": (1, None),
    "aten.sum.dim_IntList": (1, None),
    "aten.mean.dim": (1, None),
    "aten.amax.default": (1, None),
    "aten.amin.default": (1, None),
    "aten.max.dim": (1, None),
    "aten.min.dim": (1, None),
    "aten.argmax.default": (1, None),
    "aten.any.dim": (1, None),
    "aten.all.dim": (1, None),
    "aten.var.correction": (1, None),
    "aten.var.dim": (1, None),
    "aten.norm.ScalarOpt_dim": (2, None),
    "aten.linalg_vector_norm.default": (2, None),
    "aten.cumsum.default": (1, None),
    "aten.topk.default": (2, -1),
    "aten.sort.default": (1, -1),
    "aten.argsort.default": (1, -1),
    "aten.cat.default": (1, 0),
    "aten.slice.Tensor": (1, 0),
    "aten.select.int": (1, None),
    "aten.split.Tensor": (2, 0),
    "aten.split_with_sizes.default": (2, 0),
    "aten.chunk.default": (2, 0),
    "aten.unbind.int": (1, 0),
    "aten.gather.default": (1, None),
    "aten.scatter.src": (1, None),
    "aten.scatter.value": (1, None),
    "aten.repeat_interleave.self_int": (2, None),
    "aten.index_select.default": (1, None),
    "aten.glu.default": (1, -1),
    "aten.roll.default": (2, None),
    "aten.flip.default": (1, None),
}
# The last dimension is mixed, all others are kept apart.
_LAST = {
    "aten.linear.default",
    "aten.layer_norm.default",
    "aten.rms_norm.default",
    "effc.rms_norm.default",
    "effc.quantized_linear.default",
    "effc.grouped_linear.default",
    "effc.quantized_grouped_linear.default",
}
_PRODUCTS = {
    "aten.matmul.default",
    "aten.bmm.default",
    "aten.mm.default",
}
_LOOKUPS = {"aten.embedding.default", "effc.quantized_embedding.default"}


@dataclass(frozen=True)
class Obstacle:
    """A node at which tokens may meet outside attention."""

    node: fx.Node
    reason: str


def obstacles(stage: Stage, ids: str = "ids") -> Iterator[Obstacle]:
    """Everything that forbids a cache, in graph order.

    Args:
        stage: a cacheless graph without dead code.
        ids: the input [B, T] whose second size is T.
    """
    tokens = _Tokens(stage.placeholder(ids).meta["val"].shape[1].node.expr)
    for node in stage.graph.nodes:
        if node.op == "call_function" and (reason := tokens.objection(node)):
            yield Obstacle(node, reason)


class _Tokens:
    def __init__(self, symbol: sympy.Expr) -> None:
        self.symbol = symbol

    def objection(self, node: fx.Node) -> str:
        """Why a node may mix tokens; an empty text if it cannot."""
        outputs = _tensors(node.meta.get("val"))
        inputs = [t for n in node.all_input_nodes for t in _tensors(n.meta.get("val"))]
        if not outputs:
            return ""  # sizes are harmless until a tensor is computed from them as numbers
        if not any(self.dims(t) for t in (*outputs, *inputs)):
            return self._scalar_objection(node)
        name = op_name(node)
        if name == "effc.attention.default" or not name:
            return ""
        if any(len(self.dims(t)) > 1 for t in outputs):
            return "pairs tokens with tokens"
        rule = self._rule(node, name)
        if rule is None:
            return "is not known to keep tokens apart"
        return rule(node)

    def dims(self, tensor: torch.Tensor) -> list[int]:
        """Dimensions of a tensor whose size depends on T."""
        return [d for d, size in enumerate(tensor.shape) if self._depends(size)]

    def _depends(self, size: Any) -> bool:
        return isinstance(size, torch.SymInt) and self.symbol in size.node.expr.free_symbols

    def _scalar_objection(self, node: fx.Node) -> str:
        """Sizes may shape tensors; as numbers they would tell how many tokens there are."""
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor) and any(
            self._depends(n.meta.get("val")) for n in node.all_input_nodes
        ):
            return "computes with the number of tokens"
        return ""

    def _rule(self, node: fx.Node, name: str) -> Callable[[fx.Node], str] | None:
        tables: list[tuple[Any, Callable[[fx.Node], str]]] = [
            (_POINTWISE, self._pointwise),
            (_FILLS, lambda _: ""),
            (_MOVES, lambda _: ""),
            (_RESHAPES, self._reshape),
            (_ALONG, self._along),
            (_LAST, self._last),
            (_PRODUCTS, self._product),
            (_LOOKUPS, lambda _: ""),
        ]
        for table, rule in tables:
            if name in table:
                return rule
        tags = getattr(node.target, "tags", ())
        return self._pointwise if torch.Tag.pointwise in tags else None

    def _pointwise(self, node: fx.Node) -> str:
        if any(self._depends(n.meta.get("val")) for n in node.all_input_nodes):
            return "computes with the number of tokens"
        outputs = _tensors(node.meta["val"])
        from_right = {outputs[0].dim() - d for d in self.dims(outputs[0])}
        for source in node.all_input_nodes:
            for tensor in _tensors(source.meta.get("val")):
                if {tensor.dim() - d for d in self.dims(tensor)} - from_right:
                    return "aligns tokens with another dimension"
        return ""

    def _reshape(self, node: fx.Node) -> str:
        before, after = self._stride(_input(node)), self._stride(_tensors(node.meta["val"])[0])
        return "" if before == after else "moves elements from token to token"

    def _stride(self, tensor: torch.Tensor) -> sympy.Expr | None:
        """Elements between one token and the next in row-major order."""
        dims = self.dims(tensor)
        if not dims:
            return None
        size = tensor.shape[dims[0]].node.expr  # type: ignore[union-attr]
        inner = sympy.Integer(1)
        for factor in sympy.Mul.make_args(size):
            inner *= factor if factor.is_Integer else 1
        for later in tensor.shape[dims[0] + 1 :]:
            inner *= later.node.expr if isinstance(later, torch.SymInt) else later
        return inner

    def _along(self, node: fx.Node) -> str:
        position, default = _ALONG[op_name(node)]
        dims = _dimensions(node, position, default)
        if dims is None:
            return "acts on all dimensions"
        held = {d for t in self._inputs(node) for d in self.dims(t)}
        rank = max(t.dim() for t in self._inputs(node))
        if {d % rank for d in dims} & held:
            return "acts along the tokens"
        return ""

    def _last(self, node: fx.Node) -> str:
        tensor = _input(node)
        return "mixes the tokens" if tensor.dim() - 1 in self.dims(tensor) else ""

    def _product(self, node: fx.Node) -> str:
        left, right = (a.meta["val"] for a in node.args[:2])  # type: ignore[union-attr]
        inner = right.dim() - 2 if right.dim() > 1 else 0
        if left.dim() - 1 in self.dims(left) or inner in self.dims(right):
            return "sums over the tokens"
        return ""

    @staticmethod
    def _inputs(node: fx.Node) -> list[torch.Tensor]:
        first = node.args[0]
        nodes = first if isinstance(first, list | tuple) else [first]
        return [t for n in nodes for t in _tensors(n.meta["val"])]  # type: ignore[union-attr]


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [t for item in value for t in _tensors(item)]
    return []


def _input(node: fx.Node) -> torch.Tensor:
    return node.args[0].meta["val"]  # type: ignore[union-attr]


def _dimensions(node: fx.Node, position: int, default: Any) -> Sequence[int] | None:
    value = default
    if len(node.args) > position:
        value = node.args[position]
    value = node.kwargs.get("dim", node.kwargs.get("dims", value))
    if value is None or value == []:
        return None
    return [value] if isinstance(value, int) else list(value)  # type: ignore[arg-type]
