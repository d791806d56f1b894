"""The reference page names everything the language has, and its examples do what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import effc.spec.parse
from effc.diagnostics import CATALOGUE, PolicyError
from effc.spec import presets
from effc.spec.arithmetic import FUNCTIONS, UNITS
from effc.spec.conditions import ATTRIBUTES, KINDS
from effc.spec.language import COUNTED
from effc.spec.parse import parse_policy
from effc.spec.schema import (
    DTYPES,
    GATES,
    STREAM_KV,
    STREAM_WEIGHTS,
    VERIFY,
    MethodTable,
    Policy,
    QualitySpec,
    StreamSpec,
)
from effc.spec.tables import DRAFT, RULE, SETTINGS, SLOTS, TABLES
from effc.spec.wording import shown

PAGE = Path(effc.spec.parse.__file__).with_name("reference.md").read_text(encoding="utf-8")
WORDS = [
    *TABLES,
    *(key for keys in SETTINGS.values() for key in keys),
    *DRAFT,
    *RULE,
    *(slot.key for slot in SLOTS),
    *(slot.aspect for slot in SLOTS),
    *presets.names(),
    *KINDS,
    *ATTRIBUTES,
    *COUNTED,
    *UNITS,
    *FUNCTIONS,
    *(*DTYPES, *GATES, *VERIFY, *STREAM_KV, *STREAM_WEIGHTS),
    *(code for code in CATALOGUE if code.startswith("E02")),
]
EXAMPLES = re.findall(r"^\| (E02\d\d) \| .* \| `(.+)` \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("word", sorted(set(WORDS)))
def test_page_names(word: str) -> None:
    assert re.search(rf"\b{word}\b", PAGE)


def rows(heading: str) -> dict[str, tuple[str, str]]:
    """The table of keys below a heading: key -> (what it takes, its default)."""
    section = PAGE.partition(f"\n### {heading}")[2].partition("\n#")[0]
    found = re.findall(r"^\| `(\w+)` \| (.*) \| (.*) \|$", section, re.MULTILINE)
    return {key: (takes, default) for key, takes, default in found}


@pytest.mark.parametrize("name", SETTINGS)
def test_tables_list_their_keys_in_the_order_of_the_code(name: str) -> None:
    assert list(rows(f"`[{name}]`")) == list(SETTINGS[name])


def test_rules_and_drafting_list_their_keys() -> None:
    assert rows("Rules").keys() == {*RULE, "method", "store"}
    assert rows("`[draft]`").keys() == {*DRAFT, "select"}


@pytest.mark.parametrize(
    ("name", "default"),
    [("target", Policy().target), ("quality", QualitySpec()), ("stream", StreamSpec())],
)
def test_defaults_on_the_page_are_those_of_the_code(name: str, default: object) -> None:
    for key, (_, written) in rows(f"`[{name}]`").items():
        value = getattr(default, key)
        if value is not None:
            assert written.replace("`", "").startswith(shown(value))


def test_presets_on_the_page() -> None:
    section = PAGE.partition("\n## Presets")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"^\| `([\w-]+)` \|", section, re.MULTILINE)) == [*presets.names()]


def test_policies_on_the_page_are_right(everything: MethodTable) -> None:
    whole, part = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert len(parse_policy(whole, methods=everything).quantize) == 2
    bounded = f"version = 1\nquality = {{ max_kl = 1 }}\n{part}"
    read = parse_policy(bounded, methods=everything)
    assert [list(rule.choices()) for rule in (*read.kv, *read.tokens)] == [
        ["kv"],
        ["store"],
        ["tokens"],
    ]


def test_every_code_that_a_text_can_cause_has_an_example() -> None:
    codes = {code for code in CATALOGUE if code.startswith("E02")}
    assert {code for code, _ in EXAMPLES} == codes - {"E0210"}


@pytest.mark.parametrize(("code", "example"), EXAMPLES)
def test_example_causes_its_code(code: str, example: str, methods: MethodTable) -> None:
    text = example if example.startswith("version") else f"version = 1\n{example}"
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, methods=methods)
    assert caught.value.code == code
