"""The optional packages that writing ONNX takes."""

from __future__ import annotations

from effc.diagnostics import ExportError


def require_onnx() -> None:
    """Refuse to go on without onnx, onnx-ir and onnxscript.

    Raises:
        ExportError: E0801, naming the package.
    """
    try:
        import onnx  # noqa: F401
        import onnx_ir  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        missing = (error.name or "").partition(".")[0] in ("onnx", "onnx_ir", "onnxscript")
        reason = f"{error.name}, which is not installed" if missing else f"onnx, but {error}"
        raise ExportError(
            "E0801", f"exporting to onnx needs {reason}", help="pip install 'effc[onnx]'"
        ) from error
