"""Sites: the places of a program that a policy can name."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import fx

from effc.ir.pattern import op_name
from effc.ir.program import ENCODE, Program, Stage


@dataclass(frozen=True)
class Site:
    """One place that a rule can match.

    Attributes:
        kind: "linear", "experts", "embedding", "attention", "norm" or "conv".
        name: module path, e.g. "model.layers.0.mlp.up_proj".
        stage: name of the stage.
        layer: layer index, None outside the layers.
        layers: number of layers of the tower that it stands in, or else of the rest.
        node: name of the graph node.
        weight: name of the weight it reads, None for attention; sites with the same name share it.
            Of a weight that came packed, the plane of codes.
        shape: shape of that weight; of a packed one, the shape of what it stands for.
        params: number of its elements.
        heads, kv_heads: of attention.
        width: head width of attention, else the output width.
        modality: "vision" in the stage "encode", else "text".
        mask: how an attention is masked, e.g. "causal, window 64".
        bits: of a code, where the weight came packed; None where it did not.
        planes: names of all weights that make up a packed one.
    """

    kind: str
    name: str
    stage: str
    layer: int | None
    layers: int
    node: str
    weight: str | None = None
    shape: tuple[int, ...] = ()
    params: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    width: int | None = None
    modality: str = "text"
    mask: str = ""
    bits: int | None = None
    planes: tuple[str, ...] = ()


Fields = dict[str, object]


def _weighted(kind: str, weight_at: int, width_at: int) -> Callable[[fx.Node], Fields | None]:
    """Fields of an operator that reads one weight as argument `weight_at`."""

    def fields(node: fx.Node) -> Fields | None:
        weight = node.args[weight_at] if len(node.args) > weight_at else None
        if not isinstance(weight, fx.Node) or weight.op != "get_attr":
            return None
        shape = tuple(weight.meta["val"].shape)
        return {
            "kind": kind,
            "weight": str(weight.target),
            "shape": shape,
            "params": weight.meta["val"].numel(),
            "width": shape[width_at],
        }

    return fields


def _packed(kind: str, bits_at: int, width_at: int) -> Callable[[fx.Node], Fields | None]:
    """Fields of an operator with codes, scale and zero as arguments 1 to 3, and then its bits."""

    def fields(node: fx.Node) -> Fields | None:
        planes = [arg for arg in node.args[1:4] if isinstance(arg, fx.Node)]
        if any(plane.op != "get_attr" for plane in planes):
            return None
        bits, columns = node.args[bits_at], node.args[bits_at + 2]
        shape = (int(planes[0].meta["val"].shape[0]), columns)
        return {
            "kind": kind,
            "weight": str(planes[0].target),
            "shape": shape,
            "params": shape[0] * shape[1],  # type: ignore[operator]
            "width": shape[width_at],
            "bits": bits,
            "planes": tuple(str(plane.target) for plane in planes),
        }

    return fields


def _experts(node: fx.Node) -> Fields | None:
    return _weighted("experts", 1, 2 if node.args[4] else 1)(node)


def _attention(node: fx.Node) -> Fields | None:
    q, k = (arg.meta["val"] for arg in node.args[:2])  # type: ignore[union-attr]
    dense, causal, window, chunk = node.args[3:7]
    words = ["causal" if causal else "full"]
    words += [f"window {window}"] if window is not None else []
    words += [f"chunks of {chunk}"] if chunk is not None else []
    words += ["dense mask"] if dense is not None else []
    return {
        "kind": "attention",
        "heads": int(q.shape[1]),
        "kv_heads": int(k.shape[1]),
        "width": int(q.shape[3]),
        "mask": ", ".join(words),
    }


_CONV = ("default", "padding")

_READERS: dict[str, Callable[[fx.Node], Fields | None]] = {
    "aten.linear.default": _weighted("linear", 1, 0),
    "aten.embedding.default": _weighted("embedding", 0, 1),
    "effc.quantized_linear.default": _packed("linear", 5, 0),
    "effc.quantized_embedding.default": _packed("embedding", 4, 1),
    **{f"aten.conv{d}d.{how}": _weighted("conv", 1, 0) for d in (1, 2, 3) for how in _CONV},
    "aten.layer_norm.default": _weighted("norm", 2, 0),
    "effc.rms_norm.default": _weighted("norm", 1, 0),
    "effc.grouped_linear.default": _experts,
    "effc.attention.default": _attention,
}


def find_sites(program: Program) -> list[Site]:
    """All sites of a program, in graph order."""
    towers = [stage for stage in program.stages.values() if stage.name == ENCODE]
    rest = [stage for stage in program.stages.values() if stage.name != ENCODE]
    layers = {"vision": count_layers(towers), "text": count_layers(rest)}
    found = []
    for stage, node in program.nodes():
        reader = _READERS.get(op_name(node))
        fields = reader(node) if reader else None
        if fields is not None:
            layer = node.meta.get("layer")
            name = _site_name(node, fields)
            modality = "vision" if stage.name == ENCODE else "text"
            found.append(Site(name=name, stage=stage.name, layer=layer, layers=layers[modality],
                              node=node.name, modality=modality, **fields))  # type: ignore[arg-type]  # fmt: skip
    return found


def count_layers(stages: Iterable[Stage]) -> int:
    """One more than the largest layer index."""
    indices = [n.meta.get("layer") for s in stages for n in s.graph.nodes]
    return 1 + max((i for i in indices if i is not None), default=-1)


def _site_name(node: fx.Node, fields: Fields) -> str:
    """The module path; where a module holds several weights, the weight's own name."""
    path = str(node.meta.get("path") or "")
    weight = fields.get("weight")
    if fields["kind"] == "experts" and weight is not None:
        return str(weight)
    return path or str(weight or node.name)


def node_of(program: Program, site: Site) -> fx.Node:
    """The graph node of a site."""
    graph = program.stages[site.stage].graph
    return next(node for node in graph.nodes if node.name == site.node)


def is_symbolic(size: object) -> bool:
    """Whether a size is only known at run time."""
    return isinstance(size, torch.SymInt)
