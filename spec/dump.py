"""A policy as TOML text that parses to an equal policy."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import TypeVar

from effc.spec.quantity import Quantity
from effc.spec.schema import (
    Choice,
    DraftSpec,
    KvRule,
    Policy,
    QualitySpec,
    Rule,
    StreamSpec,
    TargetSpec,
)

Settings = TypeVar("Settings", TargetSpec, QualitySpec, StreamSpec)


def dump_policy(policy: Policy) -> str:
    """Write a policy in canonical form; what has its default value is left out.

    Args:
        policy: any policy; its `text` is not used.

    Returns:
        TOML with `parse_policy(dump_policy(policy)) == policy`.
    """
    blocks = [f"version = {policy.version}\n"]
    if policy.target != TargetSpec():
        blocks.append(_table("[target]", _changed(policy.target, TargetSpec())))
    if policy.quality is not None:
        blocks.append(_table("[quality]", _changed(policy.quality, QualitySpec())))
    for rule in (*policy.quantize, *policy.kv, *policy.tokens):
        blocks.append(_table(f"[[{rule.table}]]", _rule(rule)))
    if policy.draft is not None:
        blocks.append(_table("[draft]", _draft(policy.draft)))
    if policy.stream is not None:
        blocks.append(_table("[stream]", _changed(policy.stream, StreamSpec())))
    return "\n".join(blocks)


def _changed(given: Settings, default: Settings) -> dict[str, object]:
    names = [field.name for field in dataclasses.fields(given) if field.compare]
    values = {name: getattr(given, name) for name in names}
    return {name: value for name, value in values.items() if value != getattr(default, name)}


def settings_text(target: TargetSpec) -> str:
    """What `[target]` changes, on one line; empty where it changes nothing."""
    changed = _changed(target, TargetSpec())
    return ", ".join(f"{key} = {_value(value)}" for key, value in changed.items())


def _rule(rule: Rule) -> dict[str, object]:
    entries: dict[str, object] = {"where": str(rule.where)}
    if rule.method:
        entries["method"] = rule.method
    if rule.optional:
        entries["optional"] = True
    if rule.gate is not None:
        entries["gate"] = rule.gate
    if isinstance(rule, KvRule) and rule.store is not None:
        entries["store"] = rule.store
    return entries | rule.options


def _draft(draft: DraftSpec) -> dict[str, object]:
    entries: dict[str, object] = {"drafters": draft.drafters, "select": draft.select}
    if draft.verify != DraftSpec.verify:
        entries["verify"] = draft.verify
    return entries | draft.options


def _table(header: str, entries: Mapping[str, object]) -> str:
    lines = [f"{key} = {_value(value)}" for key, value in entries.items()]
    return "\n".join([header, *lines]) + "\n"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Choice):
        entries = {"method": value.method} | value.options
        return "{ " + ", ".join(f"{key} = {_value(item)}" for key, item in entries.items()) + " }"
    # TOML's basic strings escape as JSON does, but for one control character.
    text = str(value) if isinstance(value, Quantity) else value
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
