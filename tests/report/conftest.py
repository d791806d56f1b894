"""One real compilation with a made-up measurement, and a browser to look at its report with."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from effc.compilation import Compilation
from effc.compiler import compile_model
from effc.report import build_report
from tests.report.browser import Browser, find_chromium
from tests.report.sample import QUALITY, REVERTED

ROOT = Path(__file__).parents[2]
POLICY = """# Four bits per weight for everything that multiplies or looks up.

version = 1

[target]
device = "cpu"
dtype  = "float32"

[[quantize]]
where  = "linear or embedding"
method = "rtn"
bits   = 4
group  = 32
"""


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compilation:
    """The reference model at four bits; what it cost is made up."""
    policy = tmp_path_factory.mktemp("policy") / "demo.toml"
    policy.write_text(POLICY)
    done = compile_model(ROOT / "examples" / "zoo" / "lm" / "checkpoint", policy)
    done.quality = copy.deepcopy(QUALITY)
    done.reverted = copy.deepcopy(REVERTED)
    done.timed_prediction = done.prediction
    return done


@pytest.fixture(scope="session")
def written(compiled: Compilation) -> dict[str, Any]:
    """Its report, shared by the tests that only read it."""
    return build_report(compiled)


@pytest.fixture
def report(written: dict[str, Any]) -> dict[str, Any]:
    """Its report, to be changed."""
    return copy.deepcopy(written)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium; where there is none, tests are skipped, but not by the machine that
    decides whether the project is sound."""
    program = find_chromium()
    if program is None:
        reason = "no chromium on the path: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    with Browser(program, tmp_path_factory.mktemp("profile")) as running:
        yield running
