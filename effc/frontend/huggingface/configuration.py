"""The configuration of a checkpoint folder, read with the library and checked before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from effc.diagnostics import ModelError, nearest


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
        artifact = (path.parent / "effc.json").is_file()
        raise ModelError(
            "E0301",
            "the folder is a compiled artifact" if artifact else "the folder has no config.json",
            where=str(path.parent),
            help="give the checkpoint that it was compiled from, or run it: effc run"
            if artifact
            else "give the folder that save_pretrained wrote",
        )
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            "E0301",
            f"config.json cannot be read ({error})",
            where=str(path),
            help="repair it, or download it again",
        ) from error
    if not isinstance(raw, dict):
        raise ModelError(
            "E0301", "config.json is no JSON object", where=str(path), help="download it again"
        )
    return raw


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
        message = "config.json names no model_type"
    else:
        message = f"model_type {name!r} is none that transformers knows"
    near = nearest(str(name), known) if name else None
    meant = f"did you mean {near!r}? " if near else ""
    raise ModelError(
        "E0302",
        message,
        where=str(path),
        help=f"{meant}update transformers, or use a supported architecture",
    )
