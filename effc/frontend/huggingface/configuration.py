"""The configuration of a checkpoint folder, read with the library and checked before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from effc.diagnostics import ModelError, json_place, nearest


def read_config(folder: Path) -> Any:
    """The model's configuration.

    Raises:
        ModelError: E0301 missing or unreadable, E0302 unknown architecture, E0303 remote code.
    """
    from transformers import AutoConfig

    path = folder / "config.json"
    raw = _read(path)
    _require_known(raw, path)
    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise ModelError(
            "E0302",
            f"model_type {raw['model_type']!r} cannot be used ({reason})",
            where=str(path),
            help="repair config.json, or download it again",
        ) from error
    if quantization := raw.get("quantization_config"):
        method = quantization.get("quant_method", "?") if isinstance(quantization, dict) else "?"
        raise ModelError(
            "E0302",
            f"the checkpoint is already quantized ({method}), which cannot be imported yet",
            where=str(path),
            help="use the unquantized checkpoint",
        )
    return config


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        folder = path.parent
        message, help = (
            "the folder has no config.json",
            "give the folder that save_pretrained wrote",
        )
        if (folder / "effc.json").is_file():
            message = "the folder is a compiled artifact"
            help = f"give the checkpoint that it was compiled from, or `effc run {folder}`"
        raise ModelError("E0301", message, where=str(folder), help=help)
    return read_json(path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of the checkpoint.

    Raises:
        ModelError: E0301, at the line and column where the text stops being JSON.
    """
    where, message = str(path), f"{path.name} is no JSON object"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        data, message = None, f"{path.name} cannot be read: {error.strerror}"
    except UnicodeDecodeError as error:
        data, message = None, f"{path.name} is not UTF-8 text (byte {error.start})"
    except (ValueError, RecursionError) as error:
        data, where = None, json_place(error, where)
        message = f"{path.name} is no valid JSON"
    if isinstance(data, dict):
        return data
    raise ModelError("E0301", message, where=where, help="repair it, or download it again")


def _require_known(raw: dict[str, Any], path: Path) -> None:
    """Refuse what the library does not know, in words that do not advise to run foreign code."""
    from transformers import CONFIG_MAPPING

    known, name = set(CONFIG_MAPPING.keys()), raw.get("model_type")
    if name in known:
        return
    if "auto_map" in raw:
        raise ModelError(
            "E0303",
            f"the model type {name!r} asks for code from its own folder ('auto_map')",
            where=str(path),
            help="effc never runs code from a model folder; use an architecture of transformers",
        )
    if not name:
        message, help = (
            "config.json names no model_type",
            "give the folder that save_pretrained wrote",
        )
    else:
        message = f"transformers does not know the model_type {name!r}"
        near = nearest(str(name), known)
        meant = f"did you mean {near!r}? " if near else ""
        help = f"{meant}update transformers, or use a supported architecture"
    raise ModelError("E0302", message, where=str(path), help=help)
