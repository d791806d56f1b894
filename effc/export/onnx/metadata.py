"""What an ONNX model says about itself."""

from __future__ import annotations

from effc.export.onnx.lowering import Graph
from effc.ir.program import Program
from effc.settings import version


def describe(g: Graph, program: Program, stage: str, dialect: str) -> None:
    """Fill in the producer and the properties of a model."""
    info, model = program.info, g.model
    model.producer_name, model.producer_version = "effc", version()
    model.domain, model.model_version, model.doc_string = "", 1, None
    model.graph.name, model.graph.doc_string = stage, None
    known = {
        "family": info.family,
        "stage": stage,
        "dialect": dialect,
        "context": info.context,
        "vocabulary": info.vocabulary,
        "eos": ",".join(map(str, info.eos)) or None,
        "bos": info.bos,
        "pad": info.pad,
    }
    if program.loop == "autoregressive":
        known["padding"] = "right" if g.grouped else "any"
    model.metadata_props.clear()
    model.metadata_props.update({f"effc.{k}": str(v) for k, v in known.items() if v is not None})
