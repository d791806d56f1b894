"""Every case of the corpus does what the list says: it passes, or fails for a stated reason."""

from __future__ import annotations

import pytest

from tests.conformance.corpus import KINDS, cases
from tests.conformance.expected import entries, surprises
from tests.conformance.outcome import run

PARTS = 16
"""One test per part of the corpus: an item of its own per case would cost more than the cases."""


@pytest.mark.parametrize("part", range(PARTS))
def test_node_cases(part: int) -> None:
    found = surprises(run(case) for case in cases("node")[part::PARTS])
    assert not found, "\n".join(found)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_model_cases(kind: str) -> None:
    found = surprises(run(case) for case in cases(kind))
    assert not found, "\n".join(found)


def test_the_list_is_about_cases_that_exist() -> None:
    every = [case for kind in KINDS for case in cases(kind)]
    idle = [e.pattern for e in entries() if not any(e.fits(case) for case in every)]
    assert not idle
    assert all(entry.reason for entry in entries())
