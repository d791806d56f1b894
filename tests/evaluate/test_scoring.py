"""Scores against what enumeration says, and answers against those of a model that is known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest

from effc.evaluate.scorecard import items_entry
from effc.evaluate.scoring import Score, Shortcut, in_order, run_task
from effc.evaluate.tasks.base import Item
from tests.evaluate import scored


@pytest.fixture
def items() -> Iterator[list[Item]]:
    """Twelve items, expecting "w0" each, of which a test knows the facets."""
    scored.ITEMS[:] = scored.random_items(12)
    yield scored.ITEMS
    scored.ITEMS.clear()


@pytest.mark.parametrize("n", (2, 3, 6))
def test_the_standard_error_is_unbiased(n: int) -> None:
    """Over all outcomes of n fair coins, the mean of stderr^2 is the variance of the mean."""
    scores = [Score.of(coins) for coins in itertools.product((False, True), repeat=n)]
    mean = math.fsum(score.mean for score in scores) / len(scores)
    variance = math.fsum((score.mean - mean) ** 2 for score in scores) / len(scores)
    estimated = math.fsum((score.stderr or 0) ** 2 for score in scores) / len(scores)
    assert mean == pytest.approx(0.5)
    assert estimated == pytest.approx(variance)


def test_a_single_item_has_no_standard_error() -> None:
    assert Score.of([True]) == Score(1.0, None, 1)


@pytest.mark.parametrize(("right", "n"), ((0, 10), (3, 10), (10, 10), (95, 100)))
def test_the_interval_holds_the_shares_that_do_not_exclude_the_score(right: int, n: int) -> None:
    """Wilson's interval is where |p - mean| <= z sqrt(p (1 - p) / n): found by trying them all."""
    score = Score(right / n, None, n)
    steps = 200_000
    tried = (i / steps for i in range(steps + 1))
    z = 1.959963984540054
    inside = [p for p in tried if abs(p - score.mean) <= z * math.sqrt(p * (1 - p) / n)]
    assert score.interval == pytest.approx((inside[0], inside[-1]), abs=2 / steps)


def test_a_task_is_scored_by_its_own_rule(items: list[Item]) -> None:
    said = [" w0 " if n % 4 else "w0 w0" for n in range(12)]
    result = run_task(scored.Known(), scored.Scripted(said), 12)
    assert result.correct == tuple(n % 4 != 0 for n in range(12))
    assert result.score == Score.of([n % 4 != 0 for n in range(12)])
    assert result.wrong == [0, 4, 8]
    assert run_task(scored.Known(), scored.Scripted(said), 3).score.n == 3


def test_facets_split_the_items(items: list[Item]) -> None:
    """Lengths take turns over three items, places over two."""
    said = ["w0" if n % 3 else "w1" for n in range(12)]
    facets = run_task(scored.Known(), scored.Scripted(said), 12).facets
    assert {name: list(values) for name, values in facets.items()} == {
        "length": ["6", "9", "12"],
        "place": ["early", "middle"],
    }
    assert [score.mean for score in facets["length"].values()] == [0.0, 1.0, 1.0]
    assert all(score.n == 4 for score in facets["length"].values())
    for values in facets.values():
        assert sum(score.mean * score.n for score in values.values()) == pytest.approx(8)


def test_the_grid_has_a_cell_per_length_and_place(items: list[Item]) -> None:
    said = ["w0" if n == 2 else "w1" for n in range(12)]
    grid = run_task(scored.Known(), scored.Scripted(said), 12).grid
    assert grid is not None
    assert (grid.lengths, grid.places) == (("6", "9", "12"), ("early", "middle"))
    counts = [[cell.n if cell else 0 for cell in row] for row in grid.cells]
    assert counts == [[2, 2], [2, 2], [2, 2]]
    means = [cell.mean if cell else -1 for row in grid.cells for cell in row]
    assert means == [0, 0, 0, 0, 0.5, 0]


def test_a_cell_without_items_is_empty(items: list[Item]) -> None:
    grid = run_task(scored.Known(), scored.Scripted(["w0"] * 2), 2).grid
    assert grid is not None
    assert [[cell is None for cell in row] for row in grid.cells] == [[False, True], [True, False]]


def test_items_without_places_have_no_grid() -> None:
    scored.ITEMS[:] = [Item("w1", "w2", "w3", facets={"length": "3"})]
    assert run_task(scored.Known(), scored.Scripted(["w3"]), 1).grid is None


def test_the_shortcut_is_scored_on_the_same_items(items: list[Item]) -> None:
    assert run_task(scored.Known(), Shortcut(scored.Known()), 12).score.mean == 1.0


def test_an_entry_names_every_figure_with_its_error(items: list[Item]) -> None:
    first = run_task(scored.Known(), scored.Scripted(["w0"] * 9 + ["w1"] * 3), 12)
    second = run_task(scored.Known(), scored.Scripted(["w1"] * 4 + ["w0"] * 8), 12)
    entry = items_entry(first, second)
    assert entry["mean"] == 0.75 and entry["n"] == 12
    assert entry["against"]["mean"] == pytest.approx(8 / 12)
    assert entry["against"]["difference"]["mean"] == pytest.approx(1 / 12)
    assert (entry["against"]["only_here"], entry["against"]["only_there"]) == (4, 3)
    assert entry["against"]["same_answers"] == 5
    assert entry["wrong"][0] == {"index": 9, "expected": "w0", "said": "w1"}
    assert entry["items_sha256"] == items_entry(second)["items_sha256"]
    assert items_entry(second)["against"] is None


def test_values_of_facets_have_an_order() -> None:
    assert in_order({"late", "early", "middle"}) == ("early", "middle", "late")
    assert in_order({"1024", "64", "256"}) == ("64", "256", "1024")
    assert in_order({"red", "blue"}) == ("blue", "red")
