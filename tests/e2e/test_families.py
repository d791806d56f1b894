"""Fourteen architectures, compiled with an empty policy, say what transformers says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import effc
from effc.api import CompiledModel
from tests.e2e import oracle
from tests.e2e.families import FAMILIES, VOCABULARY, Family


@dataclass(frozen=True)
class Case:
    """A compiled family, its artifact on disk, and what the original answers."""

    compiled: CompiledModel
    artifact: Path
    answers: list[oracle.Answer]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.name)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    family: Family = request.param
    folder = tmp_path_factory.mktemp(family.name)
    model = family.save(folder / "model")
    compiled = effc.optimize(str(folder / "model"))
    compiled.save(folder / "artifact")
    answers = oracle.answers(model, oracle.prompts(VOCABULARY))
    return Case(compiled, folder / "artifact", answers)


def test_the_comparison_can_fail(case: Case) -> None:
    """Answers are no repetition of one token, and every choice is clear of rounding."""
    for answer in case.answers:
        assert answer.objection == ""
        assert answer.variety >= 5


def test_logits_are_those_of_the_original(case: Case) -> None:
    for answer in case.answers:
        logits = case.compiled(answer.tokens[None]).logits[0]
        assert float((logits - answer.logits).abs().max()) <= answer.tolerance


def test_a_prompt_alone_is_continued_as_by_the_original(case: Case) -> None:
    for answer in case.answers:
        tokens = case.compiled.generate(answer.prompt[None], max_new_tokens=oracle.NEW_TOKENS)
        assert tokens[0].tolist() == answer.tokens.tolist()


def test_a_ragged_batch_is_continued_as_each_prompt_alone(case: Case) -> None:
    _check_batch(case.compiled, case.answers)


def test_the_reloaded_artifact_continues_in_the_same_way(case: Case) -> None:
    _check_batch(effc.load(str(case.artifact)), case.answers)


def _check_batch(compiled: CompiledModel, answers: list[oracle.Answer]) -> None:
    ids, mask = oracle.left_padded([answer.prompt for answer in answers])
    tokens = compiled.generate(ids, attention_mask=mask, max_new_tokens=oracle.NEW_TOKENS)
    for row, answer in enumerate(answers):
        new = answer.tokens[len(answer.prompt) :]
        assert tokens[row, ids.shape[1] :].tolist() == new.tolist()
