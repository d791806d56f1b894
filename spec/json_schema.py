"""The policy language as JSON Schema, from the tables that the reader reads by.

Editors complete and check a policy with it. It is wider than the language where JSON Schema cannot
say more: selectors and quantities are texts, and what a method thinks of its options together is
not there. Every policy that `effc.spec.parse` takes is valid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from effc.spec.annotations import QUANTITY, Alternative
from effc.spec.checks import MAX_INTEGER, Key
from effc.spec.options import REQUIRED, MethodInfo, OptionInfo
from effc.spec.quantity import in_words
from effc.spec.schema import VERSION, MethodTable
from effc.spec.tables import DRAFT, METHODS, RULE, RULES, SETTINGS, STORE, Slot

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]

_SCALARS: Mapping[str, Schema] = {
    "bool": {"type": "boolean"},
    "int": {"type": "integer", "minimum": -MAX_INTEGER - 1, "maximum": MAX_INTEGER},
    "float": {"type": "number"},
    "str": {"type": "string"},
    QUANTITY: {"type": ["string", "number"]},
}


def json_schema(methods: MethodTable) -> Schema:
    """The schema of the policies that can be read with these methods.

    Args:
        methods: the registered methods, by aspect and name. A table that needs a method, of which
            there is none, is left out.

    Returns:
        JSON Schema, draft 2020-12.
    """
    version = {"const": VERSION, "description": "the version of the policy language"}
    properties: dict[str, Schema] = {"version": version}
    for name, keys in SETTINGS.items():
        if name != "stream" or methods.get(name):
            properties[name] = _object(_properties(keys))
    for name in RULES:
        alternatives = _rules(METHODS[name], methods)
        if alternatives:
            properties[name] = {"type": "array", "items": _any_of(alternatives)}
    drafts = _choices(METHODS["draft"], methods, _properties(DRAFT), ("drafters",))
    if drafts:
        properties["draft"] = _any_of(drafts)
    return {
        "$schema": DIALECT,
        "title": "effc policy",
        **_object(properties, ("version",)),
    }


def _rules(slot: Slot, methods: MethodTable) -> list[Schema]:
    """What a rule may be: one object per method, and one with a store alone."""
    stores = _choices(STORE, methods) if "store" in slot.alternatives else []
    store = {"store": _described(_any_of(stores), STORE.help)} if stores else {}
    common = _properties(RULE) | store
    rules = _choices(slot, methods, common, ("where",))
    return rules + ([_object(common, ("where", "store"))] if stores else [])


def _choices(
    slot: Slot,
    methods: MethodTable,
    common: Mapping[str, Schema] | None = None,
    required: tuple[str, ...] = (),
) -> list[Schema]:
    """One object per registered method, with the keys of the table and those of the method."""
    return [
        _object(
            {slot.key: {"const": info.name, "description": info.summary or slot.help}}
            | _options(info)
            | dict(common or {}),
            (*required, slot.key, *_required(info)),
        )
        for info in methods.get(slot.aspect, {}).values()
    ]


def _required(info: MethodInfo) -> list[str]:
    return [option.name for option in info.options if option.default is REQUIRED]


def _options(info: MethodInfo) -> dict[str, Schema]:
    return {option.name: _option(option) for option in info.options}


def _option(option: OptionInfo) -> Schema:
    if option.choices:
        shape: Schema = {"enum": list(option.choices)}
    else:
        shape = _any_of([_alternative(part) for part in option.alternatives if part != ()])
    if QUANTITY in option.alternatives:
        shape = shape | {"title": in_words(option.dimension)}
    if isinstance(option.default, bool | int | float | str):
        shape = shape | {"default": option.default}
    return _described(shape, option.help)


def _alternative(part: Alternative) -> Schema:
    return {"enum": list(part)} if isinstance(part, tuple) else dict(_SCALARS[part])


def _any_of(alternatives: list[Schema]) -> Schema:
    return alternatives[0] if len(alternatives) == 1 else {"anyOf": alternatives}


def _properties(keys: Mapping[str, Key]) -> dict[str, Schema]:
    return {name: _described(key.shape, key.help) for name, key in keys.items()}


def _described(shape: Schema, help: str) -> Schema:
    return {"description": help} | shape if help else shape


def _object(properties: Mapping[str, Schema], required: tuple[str, ...] = ()) -> Schema:
    """A table that has these keys and no others."""
    schema: Schema = {"type": "object", "properties": dict(properties)}
    if required:
        schema["required"] = list(required)
    return schema | {"additionalProperties": False}
