"""The tables of the model cards, over a tiny model whose answers are known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from effc.evaluate.scoring import Score
from examples.zoo.scores import score_table, score_tasks
from tests.e2e.families import enliven
from tests.evaluate import scored


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Any, list[bool]]]:
    folder = tmp_path_factory.mktemp("scores")
    model = scored.save_text_model(folder)
    scored.ITEMS[:], right = scored.known_items(model, 6)
    untrained = enliven(scored.save_text_model(tmp_path_factory.mktemp("untrained")))
    yield folder, untrained, right
    scored.ITEMS.clear()


def test_every_column_answers_the_same_items(known: tuple[Path, Any, list[bool]]) -> None:
    folder, untrained, right = known
    always = scored.Scripted([item.answer for item in scored.ITEMS])
    (row,) = score_tasks(folder, untrained, [scored.Known()], 6, {"oracle": always}).values()
    assert list(row) == ["trained", "untrained", "oracle", "shortcut", "chance"]
    assert row["trained"] == Score.of(right)
    assert row["oracle"] == Score(1.0, 0.0, 6)
    assert row["untrained"] == Score(0.0, 0.0, 6)
    assert row["chance"] == scored.Known.chance


def test_the_table_shows_standard_errors(known: tuple[Path, Any, list[bool]]) -> None:
    folder, untrained, right = known
    lines = score_table(folder, untrained, [scored.Known()], 6).splitlines()
    score = Score.of(right)
    assert lines[2] == "| task | trained | untrained | shortcut | chance |"
    assert f"| test.known | {score.mean:.3f} ± {score.stderr:.3f} | 0.000 ± 0.000 |" in lines[4]
