"""Models from before opset 7, whose operators broadcast by attributes: brought to opset 7."""

from __future__ import annotations

import onnx
from onnx import version_converter

from effc.diagnostics import ModelError
from effc.frontend.onnx.table import plain_domain

OLDEST = 7
"""The first opset that has translations."""


def modernized(model: onnx.ModelProto, place: str) -> onnx.ModelProto:
    """The model with operators of opset 7 or later.

    Raises:
        ModelError: E0302, onnx cannot convert it.
    """
    versions = [o.version for o in model.opset_import if plain_domain(o.domain) == ""]
    if not versions or min(versions) >= OLDEST:
        return model
    try:
        return version_converter.convert_version(model, OLDEST)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            "E0302",
            f"the file uses opset {min(versions)}; it cannot be converted to opset {OLDEST}: "
            f"{reason[-1][:200]}",
            where=place,
            help="export the model again with a newer opset",
        ) from error
