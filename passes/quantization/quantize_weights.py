"""Store weights in few bits.

Before:
    w = weights["model.layers.0.mlp.up_proj.weight"]                     # [I, W] float32
    y = aten.linear(x, w, b)
After:
    c = weights["model.layers.0.mlp.up_proj.weight.codes"]               # [I, W / 2] uint8
    s = weights["model.layers.0.mlp.up_proj.weight.scale"]               # [I, W / 32] float16
    y = effc.quantized_linear(x, c, s, None, b, 4, 32, W, "int8")

Embeddings and experts likewise. Weights are packed when they are written or loaded, one at a time;
sites that share a weight and a method share one packed copy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import fx

from effc.ir.journal import Journal
from effc.ir.passbase import Outcome, Pass, PassStage, Semantics
from effc.ir.pattern import op_name
from effc.ir.program import Program
from effc.ir.rewriter import GraphRewriter
from effc.ir.weights import Derivation
from effc.passes.quantization.method import QuantizationMethod

# An operator and its arguments.
Replacement = tuple[Callable[..., Any], tuple[Any, ...]]

# Kinds of sites that this pass can rewrite.
KINDS = ("linear", "experts", "embedding")


@dataclass(frozen=True)
class QuantizeWeights(Pass):
    """Apply quantization methods to chosen sites.

    Attributes:
        choices: (stage, node name) -> the method for that site.
        activations: for methods that leave the precision of inputs to the target.
    """

    name: ClassVar[str] = "quantize-weights"
    stage: ClassVar[PassStage] = PassStage.TRANSFORM
    semantics: ClassVar[Semantics] = Semantics.LOSSY

    choices: dict[tuple[str, str], QuantizationMethod] = field(default_factory=dict)
    activations: str = "int8"

    def call(self, program: Program, journal: Journal) -> list[Outcome]:
        """One outcome per chosen site."""
        outcomes = []
        packed: dict[tuple[str, QuantizationMethod, bool], str] = {}
        for stage in program.stages.values():
            rewriter = self.rewriter(program, stage, journal)
            for node in list(stage.graph.nodes):
                method = self.choices.get((stage.name, node.name))
                if method is None:
                    continue
                place = rewriter.graph_place(node)
                with rewriter.before(node):
                    new = _rewrite(rewriter, node, method, packed, self._activations(method))
                rewriter.replace(node, new)
                outcomes.append(Outcome(place, "applied"))
        return outcomes

    def _activations(self, method: QuantizationMethod) -> str:
        return method.activations or self.activations


def _rewrite(
    rewriter: GraphRewriter,
    node: fx.Node,
    method: QuantizationMethod,
    packed: dict[tuple[str, QuantizationMethod, bool], str],
    activations: str,
) -> fx.Node:
    replacement, weight_at = _REPLACEMENTS[op_name(node)]
    weight: Any = node.args[weight_at]
    transposed = op_name(node) == "effc.grouped_linear.default" and bool(node.args[4])
    key = (str(weight.target), method, transposed)
    if key not in packed:
        packed[key] = _pack(rewriter, *key)
    names = {plane: f"{packed[key]}.{plane}" for plane in ("codes", "scale", "zero")}
    weights = rewriter.program.weights
    planes = {p: rewriter.weight(name) for p, name in names.items() if name in weights}
    width = int(weight.meta["val"].shape[-2 if transposed else -1])
    target, args = replacement(node, _packed_arguments(planes, method, width), activations)
    return rewriter.call(target, *args)


def _pack(rewriter: GraphRewriter, name: str, method: QuantizationMethod, transposed: bool) -> str:
    """Add the packed planes of a weight to the program; returns the prefix of their names."""
    source = rewriter.program.weights[name]
    shape = source.shape[:-2] + source.shape[-2:][::-1] if transposed else source.shape

    def compute() -> dict[str, torch.Tensor]:
        values = source.load()
        return method.quantize(values.transpose(-1, -2) if transposed else values, name)

    taken = [n for n in rewriter.program.weights if n.startswith(f"{name}~")]
    prefix = name if f"{name}.codes" not in rewriter.program.weights else f"{name}~{len(taken) + 1}"
    derivation = Derivation(compute, source)
    for plane, (sizes, dtype) in method.plane_specs(shape).items():
        origin = f"{method.name} of {source.origin}"
        rewriter.add_weight(
            f"{prefix}.{plane}", derivation.weight(plane, tuple(sizes), dtype, origin)
        )
    return prefix


@dataclass(frozen=True)
class _Packed:
    """A packed weight as the operators take it.

    Attributes:
        planes: codes, scale and zero point, the last None when symmetric.
        format: bits, group length and input width.
    """

    planes: tuple[fx.Node, fx.Node, fx.Node | None]
    format: tuple[int, int, int]


def _packed_arguments(
    planes: dict[str, fx.Node], method: QuantizationMethod, width: int
) -> _Packed:
    layout = method.layout()
    group = width if layout.group is None else layout.group
    return _Packed(
        (planes["codes"], planes["scale"], planes.get("zero")), (layout.bits, group, width)
    )


def _linear(node: fx.Node, packed: _Packed, activations: str) -> Replacement:
    bias = node.args[2] if len(node.args) > 2 else None
    args = (node.args[0], *packed.planes, bias, *packed.format, activations)
    return torch.ops.effc.quantized_linear.default, args


def _experts(node: fx.Node, packed: _Packed, activations: str) -> Replacement:
    x, _, ids, bias, _ = node.args
    args = (x, *packed.planes, ids, bias, *packed.format, activations)
    return torch.ops.effc.quantized_grouped_linear.default, args


def _embedding(node: fx.Node, packed: _Packed, activations: str) -> Replacement:
    args = (node.args[1], *packed.planes, *packed.format, node.meta["val"].dtype)
    return torch.ops.effc.quantized_embedding.default, args


# Operator -> what replaces it, and the position of its weight.
_REPLACEMENTS: dict[str, tuple[Callable[[fx.Node, _Packed, str], Replacement], int]] = {
    "aten.linear.default": (_linear, 1),
    "aten.embedding.default": (_embedding, 0),
    "effc.grouped_linear.default": (_experts, 1),
}
