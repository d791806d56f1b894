"""The reference model `reason`: its rows, its loss, its resumable runs, and the shipped weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3ForCausalLM

from effc.evaluate.tasks.base import EVALUATION_SEED, Item, stream
from effc.evaluate.tasks.programs import MAX_STEPS
from effc.evaluate.tasks.reason import Arithmetic, Stack
from effc.evaluate.tasks.trees import MAX_DEPTH
from examples.zoo.__main__ import FAMILIES
from examples.zoo.reason import data
from examples.zoo.reason.evaluate import progress_words
from examples.zoo.reason.model import CONTEXT, build, config, tokenizer
from examples.zoo.reason.train import ReasonTask
from examples.zoo.trainer import Settings, Trainer
from examples.zoo.words import BOS_ID, EOS_ID, PAD_ID

CHECKPOINT = FAMILIES["reason"].checkpoint
PROGRESS = (0.0, 0.2, 0.3, 1.0)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def shipped() -> Qwen3ForCausalLM:
    return AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()


def _tiny_task(seed: int = 0) -> ReasonTask:
    return ReasonTask(build(config(hidden=128, ffn=128, layers=1, heads=2, kv_heads=1), seed), seed)


@pytest.mark.parametrize("task", [Arithmetic(), Stack()], ids=lambda task: task.name)
def test_rows_are_encoded_as_the_tokenizer_does(task: Arithmetic | Stack) -> None:
    words = tokenizer()
    for item in task.items(4, EVALUATION_SEED):
        text = f"{item.prompt} {item.answer}"
        assert words(text).input_ids == [BOS_ID, *data.encode(text)]
        assert words.decode(list(data.encode(text))) == text


@pytest.mark.parametrize("progress", PROGRESS)
def test_steps_have_equal_sizes_and_rows_that_fit(progress: float) -> None:
    rows = data.rows(seed=0, step=3, progress=progress)
    assert len(rows) < data.MAX_ROWS
    total = sum(len(ids) for ids, _ in rows)
    assert data.STEP_TOKENS <= total < data.STEP_TOKENS + CONTEXT
    for ids, prompt in rows:
        assert len(ids) <= CONTEXT
        assert ids[0] == BOS_ID and ids[-1] == EOS_ID
        question = tokenizer().decode(ids[1:prompt]).split()
        assert question[-1] == "run" or question[-3::2] == ["until", "found"]


def test_problems_grow_to_the_sizes_of_the_evaluation() -> None:
    lengths = [
        max(len(ids) for step in range(12) for ids, _ in data.rows(0, step, progress))
        for progress in PROGRESS
    ]
    assert lengths == sorted(set(lengths))
    assert data.SIZES[-1][1] == MAX_STEPS == MAX_DEPTH == 16


def test_steps_share_no_rows_and_repeat_themselves() -> None:
    first, second = (data.rows(0, step, 1.0) for step in (0, 1))
    assert data.rows(0, 0, 1.0) == first
    assert not {tuple(ids) for ids, _ in first} & {tuple(ids) for ids, _ in second}


@pytest.mark.parametrize("seed", [-1, EVALUATION_SEED])
def test_seeds_of_the_evaluation_are_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="training seeds"):
        data.rows(seed, 0, 0.0)


def test_labels_are_the_trace_and_its_end() -> None:
    rows = {tuple(ids): prompt for ids, prompt in data.rows(0, 5, 1.0)}
    batches = data.batches(0, 5, 1.0)
    assert sum(len(batch["input_ids"]) for batch in batches) == len(rows)
    for batch in batches:
        for tokens, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            ids = tuple(tokens[tokens != PAD_ID].tolist())
            prompt = rows[ids]
            expected = [data.IGNORED] * prompt + list(ids[prompt:])
            expected += [data.IGNORED] * (len(tokens) - len(ids))
            assert labels.tolist() == expected


def test_loss_is_the_mean_over_all_trace_tokens_of_a_step() -> None:
    task = _tiny_task()
    batches = task.batches(0, 0.0)
    assert len(batches) > 1
    losses = []
    for ids, prompt in data.rows(0, 0, 0.0):
        row = torch.tensor([ids])
        logits = task.model(input_ids=row).logits[0, prompt - 1 : -1]
        losses.append(cross_entropy(logits, row[0, prompt:], reduction="none"))
    mean = torch.stack([task.loss(batch) for batch in batches]).mean()
    torch.testing.assert_close(mean, torch.cat(losses).mean(), rtol=1e-5, atol=0)


def test_resumed_run_is_bit_equal_to_an_uninterrupted_one(tmp_path: Path) -> None:
    def trainer(name: str) -> Trainer:
        settings = Settings(work_dir=tmp_path / name, steps=3)
        return Trainer(_tiny_task(), settings, report=lambda line: None)

    whole = trainer("whole")
    whole.run()
    trainer("parts").run(stop_after=1)
    parts = trainer("parts")
    parts.run()
    assert whole.progress.losses == parts.progress.losses
    for name, weight in whole.task.model.state_dict().items():
        assert torch.equal(weight, parts.task.model.state_dict()[name]), name


def test_words_needed_are_those_of_the_progress_steps() -> None:
    for index in range(40):
        worked = data.draw_worked(stream(0, index), 16)
        progress = [step.text for step in worked.trace.steps if step.kind == "progress"]
        assert progress_words(worked.trace.text) == len(" ".join(progress).split())


def test_shipped_checkpoint_is_small_half_precision_and_documented() -> None:
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) <= 16 * 2**20
    settings = json.loads((CHECKPOINT / "config.json").read_text())
    assert settings["dtype"] == "float16"
    assert settings["head_dim"] == 64
    assert settings["num_key_value_heads"] < settings["num_attention_heads"]
    assert settings["hidden_size"] % 256 == settings["intermediate_size"] % 256 == 0
    with safe_open(CHECKPOINT / "model.safetensors", "pt") as weights:
        names = list(weights.keys())
        assert {weights.get_slice(name).get_dtype() for name in names} == {"F16"}
    words = AutoTokenizer.from_pretrained(CHECKPOINT)
    assert words.get_vocab() == tokenizer().get_vocab()
    assert words.padding_side == "left"
    assert "reason.stack" in (CHECKPOINT / "README.md").read_text()


def _write(model: Qwen3ForCausalLM, items: list[Item]) -> list[str]:
    words = tokenizer()
    inputs = words(
        [item.prompt for item in items],
        padding=True,
        return_tensors="pt",
        return_token_type_ids=False,
    )
    longest = max(len(item.answer.split()) for item in items) + 1
    rows = model.generate(**inputs, max_new_tokens=longest, do_sample=False)
    return words.batch_decode(rows[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("task", [Arithmetic(), Stack()], ids=lambda task: task.name)
def test_shipped_model_solves_problems_it_has_not_seen(
    shipped: Qwen3ForCausalLM, task: Arithmetic | Stack
) -> None:
    items = task.items(12, EVALUATION_SEED)
    texts = _write(shipped, items)
    # At 95 % per item, fewer than ten of twelve would be seen once in fifty times.
    right = sum(task.correct(item, text) for item, text in zip(items, texts, strict=True))
    assert right >= 10
    # It reflects as the traces it learnt from: checks on the way, and of the result.
    assert all("check" in text and "verify" in text for text in texts)
