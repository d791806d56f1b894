"""The JSON schema takes every policy that effc takes, and refuses what a schema can refuse."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from jsonschema import Draft202012Validator

import effc.spec.parse
from effc.passes.registry import METHODS, method_infos
from effc.spec import presets
from effc.spec.json_schema import json_schema
from effc.spec.parse import dump_policy
from effc.spec.schema import MethodTable, OptionInfo, Policy
from effc.spec.tables import DRAFT, RULE, SETTINGS, TABLES
from tests.spec.test_dump import POLICIES
from tests.spec.test_policy_errors import CASES
from tests.spec.test_tables import CASES as TABLE_CASES
from tests.spec.test_tables import TEXT

ROOT = Path(__file__).parents[2]
FILE = Path(effc.spec.parse.__file__).with_name("policy.schema.json")
PAGE = FILE.with_name("reference.md").read_text(encoding="utf-8")
SHIPPED = [
    *(presets.path(name) for name in presets.names()),
    *sorted((ROOT / "examples").rglob("*.toml")),
    *sorted((ROOT / "tests" / "golden").rglob("*.toml")),
]


def shipped() -> MethodTable:
    """The methods of effc itself, whatever else is installed."""
    return {
        aspect: {name: info for name, info in infos.items() if name in METHODS.get(aspect, ())}
        for aspect, infos in method_infos().items()
    }


def validator(methods: MethodTable) -> Draft202012Validator:
    schema = json_schema(methods)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_the_file_is_up_to_date() -> None:
    """After a change: `effc schema -o spec/policy.schema.json`."""
    assert json.loads(FILE.read_text(encoding="utf-8")) == json_schema(shipped())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_policies_that_ship_are_valid(path: Path) -> None:
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    assert [error.message for error in validator(shipped()).iter_errors(data)] == []


def test_policies_on_the_reference_page_are_valid() -> None:
    texts = re.findall(r"```toml\n(version.*?)```", PAGE, re.DOTALL)
    assert texts
    for text in texts:
        validator(shipped()).validate(tomllib.loads(text))


def test_every_table_is_in_the_schema(everything: MethodTable) -> None:
    properties = json_schema(everything)["properties"]
    assert properties.keys() == set(TABLES)
    validator(everything).validate(tomllib.loads(TEXT))


def test_keys_are_those_of_the_reader(everything: MethodTable) -> None:
    properties = json_schema(everything)["properties"]
    for name, keys in SETTINGS.items():
        assert properties[name]["properties"].keys() == keys.keys()
    assert properties["draft"]["properties"].keys() == {*DRAFT, "select", "horizon", "share"}
    window, snap, stored = properties["kv"]["items"]["anyOf"]
    assert window["properties"].keys() == {*RULE, "method", "store", "budget", "sinks"}
    assert snap["required"] == ["where", "method"]
    assert stored["properties"].keys() == {*RULE, "store"}


def test_tables_without_methods_are_left_out(methods: MethodTable) -> None:
    properties = json_schema(methods)["properties"]
    assert list(properties) == ["version", "target", "quality", "quantize"]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(policy=POLICIES)
def test_every_policy_is_valid(policy: Policy, everything: MethodTable) -> None:
    validator(everything).validate(tomllib.loads(dump_policy(policy)))


# Refused by the reader for reasons that JSON Schema cannot state.
BEYOND = {
    "memory of the wrong kind",
    "unknown unit",
    "mixed units",
    "option value that the method refuses",
    "unknown word in a selector",
    "misspelt attribute",
    "single equals sign",
    "open parenthesis",
    "missing operator",
    "bad regular expression",
    "bytes in a selector",
    "selector with escapes",
    "option of several types",  # 32.0 is an integer to JSON Schema
    "infinity",
    "a gate without a bound",
    "a gate beside measuring alone",
    "quantity that cannot be read",
    "quantity of another dimension",
    "share of nothing",
    "number without its percent sign",
}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param(name, text, id=name)
        for name, text, expected in (*CASES, *TABLE_CASES)
        if "E0201" not in expected
    ],
)
def test_what_the_reader_refuses(
    name: str, text: str, methods: MethodTable, everything: MethodTable
) -> None:
    table = everything if any(name == case for case, _, _ in TABLE_CASES) else methods
    assert validator(table).is_valid(tomllib.loads(text)) == (name in BEYOND)


@pytest.mark.parametrize(
    ("option", "shape"),
    [
        (OptionInfo("x", "int", 3), {"type": "integer", "default": 3}),
        (OptionInfo("x", "float"), {"type": "number"}),
        (OptionInfo("x", "bool | None", None), {"type": "boolean"}),
        (OptionInfo("x", "int", choices=(1, 2)), {"enum": [1, 2]}),
        (OptionInfo("x", "Literal['a', 'b'] | None"), {"enum": ["a", "b"]}),
        (OptionInfo("x", "str", help="what"), {"type": "string", "description": "what"}),
        (
            OptionInfo("x", "int | Literal['row']"),
            {"anyOf": [{"type": "integer"}, {"enum": ["row"]}]},
        ),
    ],
    ids=lambda value: value.type if isinstance(value, OptionInfo) else "",
)
def test_options(option: OptionInfo, shape: dict[str, object], everything: MethodTable) -> None:
    info = replace(everything["quantize"]["rtn"], options=(option,))
    schema = json_schema({"quantize": {"rtn": info}})
    found = schema["properties"]["quantize"]["items"]["properties"]["x"]
    assert json.loads(json.dumps(found), object_hook=without_bounds) == shape


def without_bounds(schema: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in schema.items() if key not in ("minimum", "maximum")}
