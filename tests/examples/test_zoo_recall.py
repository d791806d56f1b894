"""The reference model `recall`: words, rows, curriculum, what the trainer keeps, the weights."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from effc.evaluate.tasks.base import EVALUATION_SEED
from effc.evaluate.tasks.haystack import WORDS
from effc.evaluate.tasks.recall import Associative, Copy, Needle, QuestionFirst, RecallTask, TwoHop
from examples.zoo.__main__ import FAMILIES
from examples.zoo.recall import data
from examples.zoo.recall.curriculum import ENOUGH, LENGTHS, RecallTraining, Scores, answers_right
from examples.zoo.recall.data import IGNORED, PARTS
from examples.zoo.recall.model import CONTEXT, build, config
from examples.zoo.trainer import Progress, Settings, Trainer, clock
from examples.zoo.words import BOS_ID, EOS_ID, PAD_ID, SPECIALS, word_tokenizer

CHECKPOINT = FAMILIES["recall"].checkpoint


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_tokenizer_gives_every_word_its_place_and_survives_a_folder(tmp_path: Path) -> None:
    word_tokenizer(["red", "<image>", ".", "blue"]).save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer("<image> red . blue").input_ids == [0, 3, 4, 5, 6]
    assert tokenizer.decode([4, 5, 3, 6]) == "red . <image> blue"
    assert tokenizer.decode([0, 6, 1, 2], skip_special_tokens=True) == "blue"
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (BOS_ID, EOS_ID)
    padded = tokenizer(["red", "red blue"], padding=True).input_ids
    assert padded == [[PAD_ID, BOS_ID, 4], [BOS_ID, 4, 6]]
    with pytest.raises(Exception, match="Missing"):
        tokenizer("green")


@pytest.mark.parametrize("words", [["a", "a"], ["<|eos|>"], ["a b"], [""]])
def test_words_that_make_no_tokenizer_are_refused(words: list[str]) -> None:
    with pytest.raises(ValueError, match="word"):
        word_tokenizer(words)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.task.name)
def test_rows_are_what_the_tokenizer_reads_and_ask_only_for_answers(part: data.Part) -> None:
    tokenizer = word_tokenizer(WORDS)
    length, asked = 64, part.questions(64)
    batch = data.batch(part, rows=3, length=length, seed=5, index=9)
    ids, labels = batch["input_ids"], batch["labels"]
    assert ids.shape == labels.shape
    kept = labels != IGNORED
    assert torch.equal(labels[:, :-1][kept[:, :-1]], ids[:, 1:][kept[:, :-1]])
    for row in range(3):
        assert (labels[row] == EOS_ID).sum() == asked
        text = tokenizer.decode(ids[row, 1:].tolist())
        assert tokenizer(text).input_ids == ids[row].tolist()
        # Up to the first answer, a row is a prompt of the length asked for.
        assert kept[row].nonzero()[0] == length - 1
    answer = kept[0].sum() // asked
    assert answer == {Copy: 9, TwoHop: 3}.get(type(part.task), 2)


def test_a_row_is_an_item_of_the_evaluation_followed_by_more_questions() -> None:
    task = replace(Needle(), lengths=(64,))
    item = task.items(1, EVALUATION_SEED)[0]
    rng = np.random.Generator(np.random.PCG64([EVALUATION_SEED, 0]))
    ids, scored = data.lay_rows(task.draw(rng, 1, 64, place=0))
    tokens = [*word_tokenizer(WORDS)(item.prompt + " " + item.answer).input_ids, EOS_ID]
    assert ids[0].tolist() == tokens
    assert np.flatnonzero(scored[0]).tolist() == [64, 65]


def test_training_refuses_the_seeds_of_evaluation() -> None:
    with pytest.raises(ValueError, match="below 1000000"):
        data.batch(PARTS[0], 1, 64, EVALUATION_SEED, 0)


def test_every_part_has_records_for_its_questions_at_every_length() -> None:
    for part in PARTS:
        for length in LENGTHS[:-2]:
            batch = data.batch(part, 1, length, seed=1, index=length)
            assert abs(batch["input_ids"].shape[1] - part.tokens(length)) <= 3
    longest = max(part.tokens(length) for part in PARTS for length in LENGTHS)
    assert longest <= CONTEXT


def test_answers_are_right_only_as_a_whole() -> None:
    end = EOS_ID
    labels = torch.tensor([[IGNORED, 7, end, IGNORED, 8], [end, 9, 9, end, IGNORED]])
    right = torch.tensor([[True, True, True, True, False], [True, True, True, True, True]])
    # The second answer spans rows here only because the first row does not end: three answers.
    assert answers_right(right, labels) == pytest.approx(2 / 3)
    right[:] = True
    assert answers_right(right, labels) == 1.0


def test_scores_are_weighted_means_without_a_bias_to_zero() -> None:
    scores = Scores()
    scores.add(0, 0.5)
    assert scores.mean(0) == pytest.approx(0.5)
    for _ in range(200):
        scores.add(0, 0.8)
    assert scores.mean(0) == pytest.approx(0.8)
    assert scores.mean(1) == 0.0


def _training() -> RecallTraining:
    return RecallTraining(build(config(hidden=64, ffn=64, layers=2), seed=0), seed=0)


def test_next_stage_begins_when_every_gating_task_is_good() -> None:
    task = _training()
    for index, part in enumerate(PARTS):
        for _ in range(ENOUGH if part.gates else 0):
            assert task.stage == 0
            task.scores.add(index, 0.95)
    task.batches(step=0, progress=0.1)
    assert (task.stage, task.scores) == (1, Scores())
    task.batches(step=1, progress=0.1)
    assert task.stage == 1 and not task.finished


def test_one_bad_task_holds_the_stage() -> None:
    task = _training()
    for index in range(len(PARTS)):
        for _ in range(ENOUGH):
            task.scores.add(index, 0.5 if index == 0 else 1.0)
    task.batches(step=0, progress=0.1)
    assert task.stage == 0


def test_half_of_the_batches_have_the_length_of_the_stage() -> None:
    task = _training()
    task.stage = 2
    drawn = [batch for step in range(60) for batch in task.batches(step, 0.0)]
    stages = Counter(int(batch["stage"]) for batch in drawn)
    assert set(stages) == {0, 1, 2} and stages[2] >= 60
    parts = Counter(int(batch["part"]) for batch in drawn)
    assert set(parts) == set(range(len(PARTS)))


class Counting:
    """A task with a state, dict batches and an end of its own."""

    def __init__(self, enough: int = 10**9) -> None:
        self.model: nn.Module = nn.Linear(3, 3)
        nn.init.constant_(self.model.weight, 0.5)
        nn.init.zeros_(self.model.bias)
        self.seen = 0
        self.enough = enough

    @property
    def finished(self) -> bool:
        return self.seen >= self.enough

    @property
    def status(self) -> str:
        return f"seen {self.seen}"

    def state(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def restore(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]

    def batches(self, step: int, progress: float) -> list[dict[str, Tensor]]:
        # What a batch holds depends on the state: a resumed run must have it back.
        rows = torch.full((2, 3), float(self.seen))
        return [{"pixel_values": rows}, {"pixel_values": rows, "input_ids": torch.ones(2, 5)}]

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        self.seen += 1
        return self.model(batch["pixel_values"]).square().mean()


def _run(task: Counting, folder: Path, steps: int = 20, stop: int | None = None) -> Progress:
    settings = Settings(work_dir=folder, steps=steps, anneal_from=0.8, bf16=False)
    return Trainer(task, settings, report=lambda line: None).run(stop)


def test_a_resumed_curriculum_is_bit_equal_to_an_uninterrupted_one(tmp_path: Path) -> None:
    whole, first, second = Counting(), Counting(), Counting()
    expected = _run(whole, tmp_path / "whole")
    _run(first, tmp_path / "parts", stop=7)
    progress = _run(second, tmp_path / "parts")
    assert first.seen == 14 and second.seen == whole.seen == 40
    assert progress.losses == expected.losses
    assert progress.tokens == expected.tokens == 20 * 10
    assert torch.equal(whole.model.weight, second.model.weight)


def test_a_finished_task_anneals_at_once_and_ends_early(tmp_path: Path) -> None:
    # Finished after 8 of 100 steps: those become four fifths of the budget.
    progress = _run(Counting(enough=16), tmp_path, steps=100)
    assert progress.step == 10
    assert progress.scale == pytest.approx(0.1)


def test_the_clock_counts_work_and_not_waiting() -> None:
    device = torch.device("cpu")
    began, wall = clock(device), time.monotonic()
    time.sleep(0.2)
    assert clock(device) - began < 0.1 < time.monotonic() - wall
    while time.process_time() < began + 0.05:
        pass
    assert clock(device) - began >= 0.05


def test_training_starts_with_heads_that_look_one_word_back_and_for_equal_words() -> None:
    model = build(config(), seed=0).eval()
    model.set_attn_implementation("eager")
    batch = data.batch(PARTS[0], rows=2, length=256, seed=0, index=0)
    ids, labels = batch["input_ids"], batch["labels"]
    with torch.no_grad():
        first, second = model(ids, output_attentions=True).attentions[:2]  # [B, H, T, T]
    assert first.diagonal(-1, 2, 3).mean() > 0.5
    found = []
    for row, place in (labels > EOS_ID).nonzero().tolist():
        value = int((ids[row] == ids[row, place]).nonzero()[0]) + 1
        found.append(second[row, :, place, value])
    # All heads look for the value behind the key asked for, far more than at random.
    assert (torch.stack(found).mean(0) > 5 / 256).all()


def test_shipped_checkpoint_is_small_and_has_heads_enough() -> None:
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) <= 16 * 2**20
    settings = json.loads((CHECKPOINT / "config.json").read_text())
    assert settings["dtype"] == "float16"
    assert settings["head_dim"] >= 64 and settings["num_attention_heads"] >= 8
    assert settings["num_hidden_layers"] * settings["num_key_value_heads"] >= 16
    assert settings["max_position_embeddings"] >= 4096
    assert settings["vocab_size"] == len(SPECIALS) + len(WORDS)


@pytest.mark.parametrize(
    "task", [Associative(), Needle(), QuestionFirst(), Copy()], ids=lambda task: task.name
)
def test_shipped_model_recalls(task: RecallTask) -> None:
    model = AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT)
    items = replace(task, lengths=(512,)).items(12, EVALUATION_SEED)
    prompts = torch.tensor([tokenizer(item.prompt).input_ids for item in items])
    new = model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=12,
        do_sample=False,
    )[:, prompts.shape[1] :]
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in new]
    right = sum(task.correct(item, text) for item, text in zip(items, texts, strict=True))
    # A model that is right 95 times in a hundred misses three of twelve in 2 % of all draws.
    assert right >= 10
