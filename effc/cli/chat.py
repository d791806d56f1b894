"""Chat templates, as transformers writes them beside a tokenizer.

A template is Jinja text from the model's folder; it is rendered in Jinja's sandbox, which gives it
no access to Python beyond the messages.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from effc.diagnostics import ModelError, json_place

if TYPE_CHECKING:
    from effc.ir.program import ModelInfo

TEMPLATE_FILE = "chat_template.jinja"
CONFIG_FILE = "tokenizer_config.json"
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")


def apply_chat_template(info: ModelInfo, prompt: str, place: str) -> str:
    """One message of a user as the text that a chat model expects.

    Args:
        info: the model, with the files that lie beside its tokenizer.
        prompt: what the user says.
        place: the artifact, for messages.

    Raises:
        ModelError: E0309 when there is no template, or when it cannot be rendered.
    """
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    config = _config(info)
    template = _template(info, config, place)
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals |= {"raise_exception": _refuse, "strftime_now": _now}
    environment.filters["tojson"] = _to_json
    special = {name: _token(config[name]) for name in _SPECIAL if config.get(name)}
    messages = [{"role": "user", "content": prompt}]
    try:
        return environment.from_string(template).render(
            messages=messages, add_generation_prompt=True, **special
        )
    except Exception as error:  # a template is a small program and may fail in any way
        raise ModelError(
            "E0309",
            f"the chat template fails: {error}",
            where=place,
            help="run without --chat, and write the prompt as the template would",
        ) from error


def _template(info: ModelInfo, config: dict[str, object], place: str) -> str:
    if TEMPLATE_FILE in info.files:
        return info.files[TEMPLATE_FILE].read_text(encoding="utf-8")
    found = config.get("chat_template")
    if isinstance(found, list):  # several named templates
        named = {entry["name"]: entry["template"] for entry in found}
        found = named.get("default")
    if not isinstance(found, str):
        raise ModelError(
            "E0309",
            "the model has no chat template",
            where=place,
            help="run without --chat",
        )
    return found


def _config(info: ModelInfo) -> dict[str, object]:
    path = info.files.get(CONFIG_FILE, Path())
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(
            "E0309",
            f"{CONFIG_FILE} is no valid JSON",
            where=json_place(error, str(path)),
            help="compile the model again from an intact checkpoint, or run without --chat",
        ) from error
    return config if isinstance(config, dict) else {}


def _token(entry: object) -> str:
    """A special token, written as text or as an object with its content."""
    return str(entry["content"]) if isinstance(entry, dict) else str(entry)


def _to_json(data: object, indent: int | None = None) -> str:
    """Plain JSON: Jinja's own filter escapes for HTML."""
    return json.dumps(data, ensure_ascii=False, indent=indent)


def _now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


def _refuse(message: str) -> NoReturn:
    import jinja2

    raise jinja2.TemplateError(message)
