"""A policy as TOML text that parses to an equal policy."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

from effc.spec.quantity import Quantity
from effc.spec.schema import Policy, QualitySpec, Rule, TargetSpec


def dump_policy(policy: Policy) -> str:
    """Write a policy in canonical form; what has its default value is left out.

    Args:
        policy: any policy; its `text` is not used.

    Returns:
        TOML with `parse_policy(dump_policy(policy)) == policy`.
    """
    blocks = [f"version = {policy.version}\n"]
    blocks += _settings("target", policy.target, TargetSpec())
    if policy.quality is not None:
        blocks += _settings("quality", policy.quality, QualitySpec()) or ["[quality]\n"]
    for rule in (*policy.quantize, *policy.kv, *policy.tokens):
        blocks.append(_table(f"[[{rule.table}]]", _entries(rule)))
    return "\n".join(blocks)


def _settings(
    name: str, given: TargetSpec | QualitySpec, default: TargetSpec | QualitySpec
) -> list[str]:
    fields = [field.name for field in dataclasses.fields(given)]
    changed = {
        key: getattr(given, key) for key in fields if getattr(given, key) != getattr(default, key)
    }
    return [_table(f"[{name}]", changed)] if changed else []


def _entries(rule: Rule) -> dict[str, object]:
    common: dict[str, object] = {"where": str(rule.where), "method": rule.method}
    if rule.optional:
        common["optional"] = True
    return common | rule.options


def _table(header: str, entries: Mapping[str, object]) -> str:
    lines = [f"{key} = {_value(value)}" for key, value in entries.items()]
    return "\n".join([header, *lines]) + "\n"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    # TOML's basic strings escape as JSON does, but for one control character.
    text = str(value) if isinstance(value, Quantity) else value
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
