"""Which tool made an ONNX file, as far as the file shows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import onnx_ir


class Origin(NamedTuple):
    """A tool, and what it is known by."""

    exporter: str
    sign: str


# Start of the producer's name, in small letters -> the tool. Tools that come as several are below.
_PRODUCERS = {
    "onnxruntime-genai": "onnxruntime-genai model builder",
    "onnxruntime.transformers": "onnxruntime transformer optimizer",
    "onnx.quantize": "onnxruntime quantizer",
    "onnx.utils.extract_model": "onnx.utils.extract_model",
    "tf2onnx": "tf2onnx",
    "keras2onnx": "keras2onnx",
    "skl2onnx": "sklearn-onnx",
    "onnxmltools": "onnxmltools",
    "paddle": "Paddle2ONNX",
    "cntk": "CNTK",
    "effc": "effc",
}
_DYNAMO = "pkg.torch.onnx."
_SCOPES = "/"


def origin(model: onnx_ir.Model) -> Origin:
    """The tool that made a model; "unknown" where nothing tells."""
    producer = str(model.producer_name or "")
    said = f"the producer is {producer!r}" if producer else "the file names no producer"
    for start, tool in _PRODUCERS.items():
        if producer.lower().startswith(start):
            return Origin(tool, said)
    keys = next((key for key in _metadata_keys(model) if key.startswith(_DYNAMO)), None)
    if keys is not None:
        return Origin("torch.onnx, dynamo", f"{said}; nodes carry {keys}")
    if producer == "pytorch":
        return _torch_script(model, said)
    return Origin("unknown", said)


def _torch_script(model: onnx_ir.Model, said: str) -> Origin:
    """The older exporter of torch; optimum calls it, and names caches in its own way."""
    scoped = any(str(node.name or "").startswith(_SCOPES) for node in model.graph)
    sign = "nodes are named by module scopes" if scoped else "nodes carry no metadata of dynamo"
    caches = any(str(v.name).startswith("past_key_values.") for v in model.graph.inputs)
    if caches:
        sign += ", and inputs past_key_values.N as optimum names them"
        return Origin("torch.onnx, TorchScript (optimum)", f"{said}; {sign}")
    return Origin("torch.onnx, TorchScript", f"{said}; {sign}")


def _metadata_keys(model: onnx_ir.Model) -> Iterator[str]:
    for node in model.graph:
        yield from map(str, node.metadata_props)
    for name, _, _ in model.functions:
        yield str(name)
