"""`effc check`: is a policy well formed? Answers without loading torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effc.cli.frame import DebugFlag, JsonFlag
from effc.cli.output import print_json
from effc.cli.policy_flags import PresetFlag, SetFlag

if TYPE_CHECKING:
    from effc.spec.schema import Choice, Policy, Rule


def check(
    policy: Annotated[Path, typer.Argument(metavar="POLICY", help="The policy file.")],
    preset: PresetFlag = None,
    set: SetFlag = None,
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Check a policy file."""
    from effc.passes.registry import method_infos
    from effc.spec.parse import load_policy

    read = load_policy(policy, method_infos(), presets=preset or (), overrides=set or ())
    rules = [*read.quantize, *read.kv, *read.tokens]
    if json:
        print_json({"valid": True, "policy": str(policy)} | _as_json(read, rules))
        return
    print(f"{policy}: valid, {len(rules)} {'rule' if len(rules) == 1 else 'rules'}")
    for rule in rules:
        print(f"  {rule.table}: {_sentence(rule)}")
    for line in _settings(read):
        print(f"  {line}")


def _sentence(rule: Rule) -> str:
    """A rule in one line: `rtn where linear, bits = 4, gate: revert`."""
    chosen = rule.choices()
    methods = [f"{'' if a == rule.table else f'{a} '}{c.method}" for a, c in chosen.items()]
    ends = [*_options(chosen)]
    ends += ["optional"] if rule.optional else []
    ends += [f"gate: {rule.gate}"] if rule.gate else []
    return ", ".join([f"{' and '.join(methods)} where {rule.where}", *ends])


def _options(chosen: Mapping[str, Choice]) -> list[str]:
    options = [option for choice in chosen.values() for option in choice.options.items()]
    return [f"{key} = {value}" for key, value in options]


def _settings(policy: Policy) -> list[str]:
    """What stands in the tables that appear once, a line each."""
    lines = _target(policy)
    if policy.quality is not None:
        bounds = [f"{name} = {value:g}" for name, value in policy.quality.bounds().items()]
        lines.append(f"quality: {', '.join(bounds) or 'measured, without bounds'}")
    if policy.draft is not None:
        names = ", ".join(policy.draft.drafters)
        lines.append(f"draft: {names}, {policy.draft.verify}, chosen by {policy.draft.select}")
    if policy.stream is not None:
        lines.append(f"stream: weights {policy.stream.weights}, kv {policy.stream.kv}")
    return lines


def _target(policy: Policy) -> list[str]:
    """What `[target]` changes."""
    from effc.spec.dump import settings_text

    changed = settings_text(policy.target)
    return [f"target: {changed}"] if changed else []


def _as_json(policy: Policy, rules: list[Rule]) -> dict[str, object]:
    bounds = None if policy.quality is None else policy.quality.bounds()
    return {"rules": [_rule(rule) for rule in rules], "bounds": bounds}


def _rule(rule: Rule) -> dict[str, object]:
    return {
        "table": rule.table,
        "where": str(rule.where),
        "method": rule.method,
        "options": _plain(rule.options),
        "optional": rule.optional,
        "gate": rule.gate,
        "choices": {
            aspect: {"method": choice.method, "options": _plain(choice.options)}
            for aspect, choice in rule.choices().items()
        },
    }


def _plain(options: Mapping[str, object]) -> dict[str, object]:
    return {
        key: value if isinstance(value, bool | int | float | str) else str(value)
        for key, value in options.items()
    }
