"""The environment variables: one table in the code, the same in ENVIRONMENT.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from effc.diagnostics import EffcError
from effc.settings import VARIABLES, settings

ROOT = Path(__file__).parents[2]


def test_the_page_equals_the_table() -> None:
    rows = [
        tuple(cell.strip().replace("\\", "").strip("`") for cell in line.strip("|").split("|"))
        for line in (ROOT / "ENVIRONMENT.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    assert rows == [(v.name, v.values, v.default, v.help) for v in VARIABLES.values()]


def test_only_settings_reads_the_environment() -> None:
    readers = {
        path.relative_to(ROOT)
        for folder in ("effc", "passes", "runtime", "kernels", "spec")
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"os\.environ|getenv", path.read_text())
    }
    assert readers <= {Path("effc/settings.py")}


def test_defaults_hold_without_variables() -> None:
    chosen = settings({"EFFC_LOG": ""})
    assert (chosen.log, chosen.kernels, chosen.verify) == ("warning", "auto", 1)
    assert settings({"EFFC_VERIFY": "2", "EFFC_PRINT": "after:fuse-rms-norm"}).verify == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EFFC_LOG", "loud"),
        ("EFFC_LOG_FORMAT", "xml"),
        ("EFFC_STOP_AFTER", "-1"),
        ("EFFC_PRINT", "before:x"),
        ("EFFC_KERNELS", "triton"),
        ("EFFC_VERIFY", "3"),
        ("EFFC_VERIFY", "yes"),
    ],
)
def test_a_wrong_value_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(EffcError) as caught:
        settings({name: value})
    assert caught.value.code == "E0104"
    assert caught.value.where == name
    assert value in caught.value.message


def test_stop_after_is_a_number_or_nothing() -> None:
    assert settings({}).stop_after is None
    assert settings({"EFFC_STOP_AFTER": "0"}).stop_after == 0
