"""Items on their way to a model and back, with a model that is a function of its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effc.diagnostics import EffcError
from effc.evaluate.answering import ModelAnswers, Prompt, batches
from effc.evaluate.tasks.base import Item
from effc.ir.program import ModelInfo
from effc.progress import Progress
from tests.evaluate import scored

INFO = ModelInfo("toy", "toy", context=128, vocabulary=scored.VOCABULARY, eos=(scored.EOS,))
SEES = replace(INFO, image_token=scored.IMAGE, image_tokens=scored.TOKENS_PER_IMAGE)
IMAGE = np.zeros((4, 4, 3), np.uint8)


class Repeats:
    """Says the last two tokens of its prompt, then eos, then more; remembers what it read."""

    def __init__(self, info: ModelInfo = INFO) -> None:
        self.info = info
        self.read: list[list[Prompt]] = []

    def continue_prompts(self, prompts: Sequence[Prompt], new_tokens: int) -> list[list[int]]:
        self.read.append(list(prompts))
        return [[*prompt.ids[-2:], scored.EOS, 4][:new_tokens] for prompt in prompts]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> object:
    from tokenizers import Tokenizer

    folder = tmp_path_factory.mktemp("words")
    scored.save_tokenizer(folder)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=30),
    new=st.integers(1, 10),
    budget=st.integers(1, 300),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_batches_hold_every_prompt_once_within_the_budget(
    lengths: list[int], new: int, budget: int
) -> None:
    found = list(batches(lengths, new, budget))
    assert sorted(i for batch in found for i in batch) == list(range(len(lengths)))
    for batch in found:
        widest = max(lengths[i] for i in batch) + new
        assert len(batch) == 1 or widest * len(batch) <= budget
    order = [lengths[i] for batch in found for i in batch]
    assert order == sorted(lengths, reverse=True)


def test_answers_come_in_the_order_of_the_items(tokenizer: object) -> None:
    items = scored.random_items(9)
    model = Repeats()
    said = ModelAnswers(model, tokenizer, batch_tokens=40).answer(items, 8)
    assert said == [" ".join(item.prompt.split()[-2:]) for item in items]
    assert len(model.read) > 2


def test_the_longest_answer_and_eos_have_room(tokenizer: object) -> None:
    """One token less, and what comes after a right answer could not be seen."""
    model, (first, second) = Repeats(), scored.random_items(2)
    short, long = replace(first, answer="w1"), replace(second, answer="w1 w2 w3")
    asked: list[int] = []
    model.continue_prompts = lambda prompts, new: asked.append(new) or [[4]] * len(prompts)  # type: ignore[method-assign]
    ModelAnswers(model, tokenizer, batch_tokens=1).answer([short, long])
    assert asked == [4, 4]


@pytest.mark.parametrize(
    ("tokens", "text"),
    (
        ([4, 5, scored.EOS, 6], "w0 w1"),
        ([4, 5], "w0 w1"),
        ([scored.EOS], ""),
        ([4, scored.PAD, scored.EOS], "w0 <|pad|>"),
    ),
)
def test_an_answer_ends_at_eos_and_hides_nothing(
    tokenizer: object, tokens: list[int], text: str
) -> None:
    model = Repeats()
    model.continue_prompts = lambda prompts, new: [tokens]  # type: ignore[method-assign]
    assert ModelAnswers(model, tokenizer).answer([Item("w1", "w2", "w3")]) == [text]


def test_a_prompt_knows_its_context_and_its_images(tokenizer: object) -> None:
    model = Repeats(SEES)
    item = Item("w1 <image> w2", "w3 <image>", "w4", (IMAGE, IMAGE))
    ModelAnswers(model, tokenizer).answer([item])
    ((prompt,),) = model.read
    M, picture = scored.TOKENS_PER_IMAGE, scored.IMAGE
    assert prompt.ids == (scored.BOS, 5, *[picture] * M, 6, 7, *[picture] * M)
    assert prompt.context == 2 + M + 1
    assert len(prompt.images) == 2


def test_progress_counts_items(tokenizer: object) -> None:
    class Counts(Progress):
        seen: list[tuple[int, int]] = []

        def advance(self, name: str, done: int, total: int) -> None:
            self.seen.append((done, total))

    ModelAnswers(Repeats(), tokenizer, batch_tokens=1).answer(scored.random_items(3), 2, Counts())
    assert Counts.seen == [(1, 3), (2, 3), (3, 3)]


LONG = Item(" ".join(["w1"] * 126), "w2", "w3")


@pytest.mark.parametrize(
    ("info", "item", "words"),
    (
        (INFO, Item("w1 lamp", "w2", "chair"), "no token for 'lamp' (and 1 other words)"),
        (INFO, Item("w1", "w2", "chair"), "no token for 'chair'"),
        (INFO, Item("<image>", "w2", "w3", (IMAGE,)), "reads text alone"),
        (SEES, Item("w1", "w2", "w3", (IMAGE,)), "has 1 images, and the model's tokenizer makes 0"),
        (replace(INFO, eos=()), Item("w1", "w2", "w3"), "names no end token"),
        (INFO, LONG, "the longest item has 128 tokens and its answer up to 2"),
    ),
)
def test_items_that_mean_nothing_to_a_model_are_refused(
    tokenizer: object, info: ModelInfo, item: Item, words: str
) -> None:
    model = Repeats(info)
    with pytest.raises(EffcError) as caught:
        ModelAnswers(model, tokenizer).answer([item])
    assert caught.value.code == "E0414"
    assert words in caught.value.message
    assert not model.read


def test_words_read_as_unknown_are_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "w1": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    with pytest.raises(EffcError, match="no token for 'w2'"):
        ModelAnswers(Repeats(), tokenizer).answer([Item("w1", "w1", "w2")])
