"""Names of nodes, values and sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import onnx_ir as ir

from effc.export.onnx.decoder import B, Port, S, T
from effc.export.onnx.lowering import MODULE
from effc.export.onnx.placeholders import DOMAIN


def tidy(model: ir.Model) -> None:
    """Name nodes after the module whose weights they read, and forget where torch found them."""
    model.functions.clear()
    model.opset_imports.pop(DOMAIN, None)
    model.opset_imports.pop("pkg.onnxscript.torch_lib.common", None)
    used = {node.domain for node in model.graph}
    for domain in [d for d in model.opset_imports if d and d not in used]:
        model.opset_imports.pop(domain)
    seen: Counter[str] = Counter()
    place = ""
    for node in model.graph:
        node.metadata_props.clear()
        found = node.meta.get(MODULE) or _module(node)
        place = found or place
        owner = place if found else place.rpartition(".")[0]
        base = f"{owner}/{node.op_type}" if owner else node.op_type
        seen[base] += 1
        node.name = base if seen[base] == 1 else f"{base}_{seen[base] - 1}"
        for i, value in enumerate(node.outputs):
            value.metadata_props.clear()
            if not value.is_graph_output():
                # An output without a name is not computed.
                value.name = f"{node.name}/output_{i}" if value.uses() else ""


def _module(node: ir.Node) -> str:
    """The module path in the name of a weight that a node reads."""
    for x in node.inputs:
        name = None if x is None or x.const_value is None else x.name
        if name and "." in name:
            for kind in (".weight", ".bias"):
                if kind in name:
                    return name[: name.index(kind)]
    return ""


def name_sizes(model: ir.Model, inputs: Sequence[Port]) -> None:
    """Sizes that vary, at the border of the model."""
    for value, port in zip(model.graph.inputs, inputs, strict=True):
        value.shape = ir.Shape(port.spec.shape)
    for value in model.graph.outputs:
        shape = list(value.shape or ())
        if value.name == "logits":
            value.shape = ir.Shape([B, T, shape[-1]])
        else:
            value.shape = ir.Shape([B, shape[1], S, shape[3]])
