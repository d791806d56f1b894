"""Sampling: the law of the draw, and transformers' processors as an independent opinion."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import pytest
import torch

from effc.diagnostics import GenerationError
from effc.runtime.sampling import (
    SamplingOptions,
    draw,
    penalize_repetition,
    sample,
    sampling_distribution,
)


def scores(seed: int, rows: int = 4, V: int = 50, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, V, generator=torch.Generator().manual_seed(seed)) * scale


def choose(options: SamplingOptions, logits: torch.Tensor) -> list[int]:
    rows = len(logits)
    return sample(logits, options, options.generators(rows), [[]] * rows)


def test_greedy_takes_the_first_of_equals() -> None:
    logits = torch.zeros(2, 9)
    logits[0, [3, 7]] = 1.0
    assert choose(SamplingOptions(), logits) == [3, 0]


GRID = list(itertools.product([0.6, 1.0, 1.9], [None, 1, 7, 200], [None, 0.3, 0.9], [None, 0.2]))


@pytest.mark.parametrize(("temperature", "top_k", "top_p", "min_p"), GRID)
def test_distribution_agrees_with_transformers(
    temperature: float, top_k: int | None, top_p: float | None, min_p: float | None
) -> None:
    process = pytest.importorskip("transformers.generation.logits_process")
    logits = scores(1)
    expected = process.TemperatureLogitsWarper(temperature)(None, logits)
    if top_k is not None:
        expected = process.TopKLogitsWarper(top_k)(None, expected)
    if top_p is not None:
        expected = process.TopPLogitsWarper(top_p)(None, expected)
    if min_p is not None:
        expected = process.MinPLogitsWarper(min_p)(None, expected)
    options = SamplingOptions(True, temperature, top_k, top_p, min_p)
    assert torch.equal(sampling_distribution(logits, options), expected.softmax(-1))


def test_repetition_penalty_agrees_with_transformers() -> None:
    process = pytest.importorskip("transformers.generation.logits_process")
    logits = scores(2, rows=2)
    histories = [[3, 3, 9, 11], [0, 49, 7, 7]]
    expected = process.RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor(histories), logits)
    assert torch.equal(penalize_repetition(logits, histories, 1.7), expected)


def test_repetition_penalty_steers_greedy_choice_and_spares_its_input() -> None:
    logits = torch.tensor([[2.0, 1.5, -1.0]])
    kept = logits.clone()
    options = SamplingOptions(repetition_penalty=2.0)
    assert sample(logits, options, options.generators(1), [[0]]) == [1]
    assert torch.equal(logits, kept)


@pytest.mark.parametrize("top_p", [0.05, 0.3, 0.5, 0.77, 0.95, 1.0])
def test_nucleus_is_the_smallest_set_that_reaches_the_mass(top_p: float) -> None:
    logits = scores(3, rows=3, V=9).double()
    kept = sampling_distribution(logits, SamplingOptions(True, top_p=top_p)) > 0
    for row, mask in zip(logits.softmax(-1).tolist(), kept.tolist(), strict=True):
        sets = itertools.chain.from_iterable(
            itertools.combinations(range(9), size) for size in range(1, 10)
        )
        enough = [s for s in sets if sum(row[i] for i in s) >= top_p - 1e-12]
        size = min(map(len, enough))
        best = max((s for s in enough if len(s) == size), key=lambda s: sum(row[i] for i in s))
        assert [i for i, inside in enumerate(mask) if inside] == sorted(best)


@pytest.mark.parametrize("min_p", [0.0, 0.01, 0.3, 1.0])
def test_min_p_is_relative_to_the_likeliest(min_p: float) -> None:
    logits = scores(4, rows=3)
    kept = sampling_distribution(logits, SamplingOptions(True, min_p=min_p)) > 0
    for row, mask in zip(logits.softmax(-1).tolist(), kept.tolist(), strict=True):
        assert mask == [p >= min_p * max(row) for p in row]


def test_top_k_keeps_ties_with_the_last() -> None:
    logits = torch.tensor([[3.0, 1.0, 1.0, 0.0]])
    kept = sampling_distribution(logits, SamplingOptions(True, top_k=2)) > 0
    assert kept.tolist() == [[True, True, True, False]]


def test_draws_follow_the_distribution() -> None:
    """Pearson's statistic over 20000 draws; 9 degrees of freedom pass 27.9 once in 1000."""
    law = torch.tensor([0.3, 0.2, 0.0, 0.15, 0.1, 0.1, 0.06, 0.0, 0.05, 0.02, 0.015, 0.005])
    generator = torch.Generator().manual_seed(5)
    n = 20_000
    counts = torch.bincount(
        torch.tensor([draw(law, generator) for _ in range(n)]), minlength=len(law)
    )
    assert counts[law == 0].eq(0).all()
    expected = law[law > 0].double() * n
    assert float(((counts[law > 0] - expected) ** 2 / expected).sum()) < 27.9


def test_draw_never_takes_an_impossible_token_at_the_ends() -> None:
    law = torch.tensor([0.0, 0.0, 1.0, 0.0])
    generator = torch.Generator().manual_seed(0)
    assert {draw(law, generator) for _ in range(200)} == {2}


def test_draws_of_a_row_do_not_depend_on_its_company() -> None:
    options = SamplingOptions(True, seed=11)
    logits = scores(6)
    generators = options.generators(4)
    together = [sample(logits, options, generators, [[]] * 4) for _ in range(5)]
    for row in range(4):
        generator = options.generators(4)[row]
        alone = [sample(logits[row : row + 1], options, [generator], [[]])[0] for _ in range(5)]
        assert alone == [step[row] for step in together]


def test_requests_with_seeds_of_their_own_draw_the_same_in_any_batch() -> None:
    logits = scores(7)
    seeds = [5, 99, 5, 0]
    together = choose(SamplingOptions(True, seed=seeds), logits)
    for row, seed in enumerate(seeds):
        assert choose(SamplingOptions(True, seed=[seed]), logits[row : row + 1]) == [together[row]]
    back = choose(SamplingOptions(True, seed=seeds[::-1]), logits.flip(0))
    assert back == together[::-1]
    with pytest.raises(GenerationError, match="E0703.*seed must be one integer, or one for each"):
        SamplingOptions(True, seed=[1, 2]).generators(3)


def test_seed_fixes_the_draws_and_rows_differ() -> None:
    logits = torch.zeros(8, 1000)
    first, again, other = (choose(SamplingOptions(True, seed=s), logits) for s in (3, 3, 4))
    assert first == again != other
    assert len(set(first)) > 1


def test_without_a_seed_torch_decides() -> None:
    logits = torch.zeros(4, 1000)
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(choose(SamplingOptions(True), logits))
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("do_sample", [False, True])
def test_logits_that_are_not_numbers_are_refused(bad: float, do_sample: bool) -> None:
    logits = torch.zeros(2, 5)
    logits[1, 2] = bad
    with pytest.raises(GenerationError, match="E0705"):
        choose(SamplingOptions(do_sample), logits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"do_sample": 1}, "do_sample must be True or False, found 1"),
        ({"temperature": -0.5}, "temperature must be a finite number >= 0, found -0.5"),
        ({"temperature": "hot"}, "temperature must be a finite number >= 0, found 'hot'"),
        ({"temperature": float("nan")}, "temperature must be .*found nan"),
        ({"do_sample": True, "temperature": 0}, "> 0 to sample, found 0\nhelp: do_sample=False"),
        ({"top_k": 0}, "top_k must be an integer >= 1, found 0"),
        ({"top_k": 2.0}, "top_k must be an integer >= 1, found 2.0"),
        ({"top_p": 0.0}, "top_p must be a finite number > 0 and <= 1, found 0.0"),
        ({"top_p": 1.5}, "top_p must be a finite number > 0 and <= 1, found 1.5"),
        ({"min_p": -0.1}, "min_p must be a finite number >= 0 and <= 1, found -0.1"),
        ({"repetition_penalty": 0}, "repetition_penalty must be a finite number > 0, found 0"),
        ({"seed": -1}, "seed must be an integer >= 0, found -1"),
        ({"seed": True}, "seed must be an integer >= 0, found True"),
        ({"seed": [3, -1]}, "seed must be an integer >= 0, found -1"),
    ],
)
def test_bad_options_name_argument_found_and_allowed(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(GenerationError, match="E0703.*" + message):
        SamplingOptions(**arguments)


def test_options_without_effect_are_pointed_out() -> None:
    with pytest.warns(UserWarning, match="temperature, top_k has no effect without do_sample"):
        SamplingOptions(temperature=0.7, top_k=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SamplingOptions(temperature=0.0, seed=3, repetition_penalty=1.2)
        SamplingOptions(True, temperature=0.7, top_k=5)
