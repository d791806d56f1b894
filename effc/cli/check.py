"""`effc check`: is a policy well formed? Answers without loading torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from effc.cli.frame import DebugFlag, JsonFlag
from effc.cli.output import print_json


def check(
    policy: Annotated[Path, typer.Argument(help="The policy file.")],
    json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Check a policy file."""
    from effc.passes.registry import method_infos
    from effc.spec.parse import load_policy

    read = load_policy(policy, method_infos())
    rules = [*read.quantize, *read.kv, *read.tokens]
    if json:
        print_json({"valid": True, "policy": str(policy), "rules": [_rule(r) for r in rules]})
        return
    print(f"{policy}: valid, {len(rules)} {'rule' if len(rules) == 1 else 'rules'}")
    for rule in rules:
        options = "".join(f", {key} = {value}" for key, value in rule.options.items())
        print(f"  {rule.table}: {rule.method} where {rule.where}{options}")


def _rule(rule: object) -> dict[str, object]:
    fields = {
        field.name: getattr(rule, field.name)
        for field in dataclasses.fields(rule)  # type: ignore[arg-type]
        if field.name in ("where", "method", "options", "optional")
    }
    options = {key: _plain(value) for key, value in fields.pop("options").items()}
    table = rule.table  # type: ignore[attr-defined]
    return {"table": table, **fields, "where": str(fields["where"]), "options": options}


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
