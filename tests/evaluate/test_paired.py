"""Paired comparison against sums over all outcomes, and against drawing the items themselves."""

from __future__ import annotations

import itertools
import random
import statistics

import pytest

from effc.evaluate.paired import bootstrap, compare, mcnemar


@pytest.mark.parametrize("n", range(1, 11))
def test_mcnemar_sums_the_outcomes_that_are_no_likelier(n: int) -> None:
    """Of the 2^n ways in which n discordant items fall, those at least as lopsided."""
    for wins in range(n + 1):
        gap = abs(2 * wins - n)
        falls = itertools.product((0, 1), repeat=n)
        extreme = sum(abs(2 * sum(fall) - n) >= gap for fall in falls)
        assert mcnemar(wins, n - wins) == pytest.approx(extreme / 2**n)


def test_nothing_discordant_is_no_evidence() -> None:
    assert mcnemar(0, 0) == 1.0


def test_counts_go_both_ways() -> None:
    first = [True, True, True, False, False, True]
    second = [True, False, False, True, False, True]
    found = compare(first, second)
    assert (found.n, found.only_first, found.only_second) == (6, 2, 1)
    assert found.difference == pytest.approx(1 / 6)
    gaps = [int(a) - int(b) for a, b in zip(first, second, strict=True)]
    assert found.stderr == pytest.approx(statistics.stdev(gaps) / 6**0.5)
    turned = compare(second, first)
    assert turned.difference == -found.difference
    assert turned.p == found.p


def test_equal_models_do_not_differ() -> None:
    found = compare([True, False, True], [True, False, True])
    assert (found.difference, found.stderr, found.interval, found.p) == (0, 0, (0, 0), 1)


@pytest.mark.parametrize(("wins", "losses", "n"), ((9, 2, 40), (0, 5, 30), (3, 3, 20)))
def test_the_bootstrap_draws_items_again(wins: int, losses: int, n: int) -> None:
    """Beside 4,000 draws of items with a generator of another kind; bounds are multiples of 1/n."""
    gaps = [1] * wins + [-1] * losses + [0] * (n - wins - losses)
    rng = random.Random(5)
    means = sorted(sum(rng.choices(gaps, k=n)) / n for _ in range(4000))
    low, high = bootstrap(wins, losses, n)
    assert low == pytest.approx(means[100], abs=1.01 / n)
    assert high == pytest.approx(means[3899], abs=1.01 / n)
    assert bootstrap(wins, losses, n) == (low, high)
