"""Where an ONNX node came from: the module path that its exporter left behind.

Names serve people only: reports and the names of sites. No rewrite depends on them.
"""

from __future__ import annotations

import ast

import onnx_ir

from effc.frontend.onnx.emitter import Origin
from effc.ir.types import layer_of

_SCOPES = "pkg.torch.onnx.name_scopes"


class ModulePaths:
    """Module paths of the nodes of one model.

    Args:
        model: the wrapper around a model that was made for exporting it is cut from all paths.
    """

    def __init__(self, model: onnx_ir.Model) -> None:
        paths = {_path(node) for node in model.graph} - {""}
        first = {path.partition(".")[0] for path in paths}
        deeper = any("." in path for path in paths)
        self._prefix = f"{first.pop()}." if len(first) == 1 and deeper else ""
        # A model whose one module is "model" has that name in its checkpoint as well.
        if self._prefix == "model.":
            self._prefix = ""

    def __call__(self, node: onnx_ir.Node) -> Origin:
        """The origin of a node of the main graph."""
        path = _path(node).removeprefix(self._prefix)
        path = "" if f"{path}." == self._prefix else path
        return Origin(path, layer_of(path))


def _path(node: onnx_ir.Node) -> str:
    """As the exporter wrote it.

    torch.onnx leaves a list of scopes behind; earlier exporters, and the builder of
    onnxruntime-genai, names such as "/model/layers.0/mlp/up_proj/MatMul".
    """
    scopes = node.metadata_props.get(_SCOPES)
    if scopes:
        return _last_scope(scopes)
    parts = [part for part in str(node.name or "").split("/") if part]
    return ".".join(parts[:-1])


def _last_scope(text: str) -> str:
    try:
        scopes = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return ""
    if not isinstance(scopes, list) or len(scopes) < 2 or not isinstance(scopes[-2], str):
        return ""
    return "" if scopes[-2].startswith("_empty") else scopes[-2]
