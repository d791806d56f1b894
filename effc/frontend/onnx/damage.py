"""How a file that is no sound ONNX model is refused."""

from __future__ import annotations

from effc.diagnostics import ModelError

AGAIN = "export the model again, or download it again"


def damaged(place: str, message: str, help: str = AGAIN) -> ModelError:
    """E0310 at a file, or at what was given instead of one."""
    return ModelError("E0310", message, where=place, help=help)


def text(value: str | bytes, what: str, place: str) -> str:
    """A name of the file, which protobuf hands over as bytes where it is no text.

    Raises:
        ModelError: E0310, it is not UTF-8.
    """
    if isinstance(value, bytes):
        raise damaged(place, f"{what} is not UTF-8 text: {value[:40]!r}")
    return value


def some(items: list[str], limit: int = 4) -> str:
    """The first few of many, for a message."""
    shown = ", ".join(items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"
