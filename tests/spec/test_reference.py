"""The reference page names everything the language has, and its examples do what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import effc.spec.parse
from effc.diagnostics import CATALOGUE, PolicyError
from effc.spec.arithmetic import FUNCTIONS, UNITS
from effc.spec.checks import SETTINGS, rule_checks
from effc.spec.conditions import ATTRIBUTES, KINDS
from effc.spec.language import COUNTED
from effc.spec.parse import parse_policy
from effc.spec.reader import TABLES, UNBUILT_RULE_KEYS
from effc.spec.schema import DTYPES, MethodTable

PAGE = Path(effc.spec.parse.__file__).with_name("reference.md").read_text(encoding="utf-8")
WORDS = [
    *TABLES,
    *UNBUILT_RULE_KEYS,
    *(key for checks in SETTINGS.values() for key in checks),
    *rule_checks({}, "quantize"),
    *KINDS,
    *ATTRIBUTES,
    *COUNTED,
    *UNITS,
    *FUNCTIONS,
    *DTYPES,
    *(code for code in CATALOGUE if code.startswith("E02")),
]
EXAMPLES = re.findall(r"^\| (E02\d\d) \| .* \| `(.+)` \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("word", sorted(set(WORDS)))
def test_page_names(word: str) -> None:
    assert re.search(rf"\b{word}\b", PAGE)


def test_policies_on_the_page_are_right(methods: MethodTable) -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    assert len(parse_policy(text, methods=methods).quantize) == 2


def test_every_code_that_a_text_can_cause_has_an_example() -> None:
    codes = {code for code in CATALOGUE if code.startswith("E02")}
    assert {code for code, _ in EXAMPLES} == codes - {"E0210", "E0211"}


@pytest.mark.parametrize(("code", "example"), EXAMPLES)
def test_example_causes_its_code(code: str, example: str, methods: MethodTable) -> None:
    text = example if example.startswith("version") else f"version = 1\n{example}"
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, methods=methods)
    assert caught.value.code == code
