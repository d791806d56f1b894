"""Every evaluation set can be made again from its seed, on any machine.

After a task was added or changed on purpose: `python -m tests.evaluate.tasks.test_checksums
--write`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from effc.evaluate.tasks.base import (
    EVALUATION_SEED,
    IMAGE_WORD,
    Item,
    Task,
    checksum,
    held_out,
    stream,
)
from effc.evaluate.tasks.registry import TASKS, task_named

GOLDEN = Path(__file__).with_name("checksums.json")
ITEMS = 8


def computed(name: str) -> str:
    return checksum(task_named(name), ITEMS, EVALUATION_SEED)


@pytest.fixture(params=sorted(TASKS))
def task(request: pytest.FixtureRequest) -> Task:
    return task_named(request.param)


def test_every_set_is_the_one_of_the_golden() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert {name: computed(name) for name in sorted(TASKS)} == golden


def test_items_do_not_depend_on_how_many_are_made(task: Task) -> None:
    few, more = task.items(3, EVALUATION_SEED), task.items(ITEMS, EVALUATION_SEED)
    assert few == more[:3]


def test_seeds_make_different_items(task: Task) -> None:
    assert task.items(ITEMS, EVALUATION_SEED) != task.items(ITEMS, EVALUATION_SEED + 1)
    assert task.items(ITEMS, EVALUATION_SEED) != task.items(ITEMS, 0)


def test_every_image_has_its_word_and_every_answer_is_correct(task: Task) -> None:
    for item in task.items(ITEMS, EVALUATION_SEED):
        assert item.prompt.split().count(IMAGE_WORD) == len(item.images)
        assert all(i.dtype == np.uint8 and i.shape[2:] == (3,) for i in item.images)
        assert item.answer.strip()
        assert task.correct(item, f" {item.answer} ")
        assert not task.correct(item, "")


def test_a_task_is_registered_under_its_name(task: Task) -> None:
    assert TASKS[task.name].endswith(f":{type(task).__name__}")
    assert 0 <= task.chance < 1
    assert task.summary and "\n" not in task.summary


def test_tasks_need_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from effc.evaluate.tasks.registry import TASKS, task_named\n"
        "[task_named(name).items(1, 1) for name in TASKS]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


IMAGE = np.zeros((2, 3, 3), np.uint8)
CHANGED = (
    Item("a b", "c", "d"),
    Item("a", "b c", "d"),
    Item("a b", "c", "d", (IMAGE,)),
    Item("a b", "c", "d", (IMAGE.reshape(3, 2, 3),)),
    Item("a b", "c", "d", (IMAGE, IMAGE)),
    Item("a b", "c", "d", (IMAGE + np.uint8(1),)),
    Item("a b", "c", "d", facets={"place": "early"}),
    Item("a b", "c", "d", facets={"place": "late"}),
)


def test_canonical_bytes_tell_items_apart() -> None:
    assert len({item.canonical_bytes() for item in CHANGED}) == len(CHANGED)
    assert len(set(CHANGED)) == len(CHANGED)
    assert CHANGED[0] == Item("a b", "c", "d") != "a b c"


def test_the_order_of_facets_and_of_bytes_in_memory_says_nothing() -> None:
    one = Item("a", "b", "c", (IMAGE,), {"x": "1", "y": "2"})
    other = Item("a", "b", "c", (np.asfortranarray(IMAGE),), {"y": "2", "x": "1"})
    assert one == other and hash(one) == hash(other)


@pytest.mark.parametrize(
    ("context", "question", "prompt"), (("a", "b", "a b"), ("", "b", "b"), ("a", "", "a"))
)
def test_a_prompt_is_context_and_question(context: str, question: str, prompt: str) -> None:
    assert Item(context, question, "x").prompt == prompt


def test_streams_are_their_own() -> None:
    draws = {
        tuple(stream(seed, index).integers(0, 1 << 30, 4))
        for seed in (0, 1, EVALUATION_SEED)
        for index in range(4)
    }
    assert len(draws) == 12


def test_one_key_in_eight_is_held_out() -> None:
    share = sum(held_out(str(n)) for n in range(4000)) / 4000
    # Four standard errors of a binomial with p = 1/8 and n = 4000.
    assert abs(share - 1 / 8) < 4 * (1 / 8 * 7 / 8 / 4000) ** 0.5


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m tests.evaluate.tasks.test_checksums --write")
    table = {name: computed(name) for name in sorted(TASKS)}
    GOLDEN.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
