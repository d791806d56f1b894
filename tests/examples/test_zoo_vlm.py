"""Family `vlm`: questions of a row do not see one another, labels say what is painted."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn.functional import one_hot
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlavaForConditionalGeneration,
)

from effc.evaluate.scoring import run_task
from effc.evaluate.tasks.base import EVALUATION_SEED, IMAGE_WORD, stream
from effc.evaluate.tasks.layout import PATCH, PATCHES, Scene
from effc.evaluate.tasks.registry import task_named
from effc.evaluate.tasks.rendering import DIGITS
from effc.evaluate.tasks.scenes import WORDS
from examples.zoo.__main__ import FAMILIES
from examples.zoo.scores import answers_of
from examples.zoo.trainer import Settings
from examples.zoo.vlm import data
from examples.zoo.vlm import train as training
from examples.zoo.vlm.evaluate import TASKS, Misled
from examples.zoo.vlm.folder import PREPROCESSOR, PROCESSOR, save
from examples.zoo.vlm.model import IMAGE_ID, IMAGE_TOKENS, build, config
from examples.zoo.vlm.warmup import (
    CLASSES,
    COLOUR_CLASSES,
    DIGIT_CLASSES,
    SHAPE_CLASSES,
    WarmupTask,
    draw_scene,
    patch_labels,
)
from examples.zoo.words import BOS_ID, EOS_ID, IMAGE, word_tokenizer

CHECKPOINT = FAMILIES["vlm"].checkpoint


def tiny_tower() -> CLIPVisionConfig:
    return CLIPVisionConfig(
        image_size=98,
        patch_size=7,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=1,
        projection_dim=32,
    )


def tiny_model(seed: int = 0) -> LlavaForConditionalGeneration:
    settings = config(width=32, layers=2)
    settings.vision_config = tiny_tower()
    return build(settings, seed)


@pytest.mark.parametrize("kind", data.SHEETS)
def test_a_question_in_a_row_is_read_as_if_it_stood_alone(kind: str) -> None:
    sheets = [data.SHEETS[kind](stream(0, index)) for index in range(2)]
    task = training.QuestionTask(tiny_model().eval(), seed=0)
    batch = data.batch(sheets)
    with torch.no_grad():
        packed = packed_logits(task.model, batch)
        for row, sheet in enumerate(sheets):
            for number, (_, query) in enumerate(sheet.queries, start=1):
                prompt = data.encode(f"<|bos|> {sheet.context} {query.question}")
                answer = [*data.encode(query.answer), EOS_ID]
                alone = task.model(
                    input_ids=torch.tensor([prompt + answer[:-1]]),
                    pixel_values=data.pixel_values([scene.draw() for scene in sheet.scenes]),
                ).logits[0, len(prompt) - 1 :]
                here = (batch["segments"][row] == number) & (batch["labels"][row] >= 0)
                assert batch["labels"][row][here].tolist() == answer
                torch.testing.assert_close(packed[row][here], alone, rtol=1e-4, atol=1e-5)


def packed_logits(model: LlavaForConditionalGeneration, batch: dict[str, Tensor]) -> Tensor:
    return model(
        input_ids=batch["input_ids"],
        pixel_values=batch["pixel_values"],
        attention_mask=data.mask(batch["segments"]),
        position_ids=batch["position_ids"],
    ).logits


def test_loss_is_that_of_the_answers_and_counts_by_task() -> None:
    task = training.QuestionTask(tiny_model().eval(), seed=0)
    for batch in task.batches(step=0, progress=0.0):
        logits = packed_logits(task.model, batch)
        rows = logits.log_softmax(-1).gather(-1, batch["labels"].clamp(min=0)[..., None])[..., 0]
        expected = -rows[batch["labels"] >= 0].mean()
        torch.testing.assert_close(task.loss(batch), expected, rtol=1e-5, atol=1e-6)
    assert set(task.accuracy) == set(data.TASKS)
    assert all(0 <= share <= 1 for share in task.accuracy.values())


def test_ids_are_those_of_the_tokenizer() -> None:
    tokenizer = word_tokenizer(WORDS)
    for kind, draw in data.SHEETS.items():
        sheet = draw(stream(1, 0))
        for _, query in sheet.queries:
            prompt = f"{sheet.context} {query.question}"
            expanded = prompt.replace(IMAGE_WORD, " ".join([IMAGE] * IMAGE_TOKENS))
            assert tokenizer(expanded).input_ids == [BOS_ID, *data.encode(prompt)], kind
    assert tokenizer.convert_tokens_to_ids(IMAGE) == IMAGE_ID


@pytest.mark.parametrize("index", range(6))
def test_patch_labels_say_what_is_painted(index: int) -> None:
    scene = draw_scene(stream(2, index))
    labels = patch_labels(scene).reshape(PATCHES, PATCHES, len(CLASSES))
    changed = (scene.draw() != Scene((), scene.backdrop).draw()).any(-1)
    pixels = changed.reshape(PATCHES, PATCH, PATCHES, PATCH).sum((1, 3))
    assert ((labels[..., 0] > 0) == (pixels >= 4)).all()
    for part in (1, 2, 4):
        assert ((labels[..., part] > 0) == (labels[..., 0] > 0)).all()
    assert not labels[labels[..., 0] == 0].any()
    for thing in scene.things:
        colour, shape, _, digit, place, turn = labels[thing.row, thing.column]
        bare = thing.shape in DIGITS
        assert COLOUR_CLASSES[colour] == thing.colour
        assert SHAPE_CLASSES[shape] == ("row" if bare else thing.shape)
        assert DIGIT_CLASSES[digit] == (thing.shape if bare else thing.digit)
        assert place == 5
        row = [one for one in scene.things if bare and one.colour == thing.colour]
        assert turn == (1 + row.index(thing) if bare else 0)
    assert (labels[..., 4] == 5).sum() == len(scene.things)


def test_pixels_are_prepared_as_the_folder_says() -> None:
    image = np.arange(98 * 98 * 3).reshape(98, 98, 3).astype(np.uint8)
    (mean, *_), (std, *_) = PREPROCESSOR["image_mean"], PREPROCESSOR["image_std"]
    expected = ((image / 255 - mean) / std).transpose(2, 0, 1)
    prepared = data.pixel_values([image])
    assert prepared.dtype == torch.float32
    np.testing.assert_allclose(prepared[0].numpy(), expected, rtol=0, atol=1e-6)
    assert PREPROCESSOR["crop_size"] == {"height": 98, "width": 98}


def test_the_tower_waits_for_the_decoder() -> None:
    task = training.QuestionTask(tiny_model(), seed=0)
    tower = task.model.model.vision_tower
    for progress, learns in ((0.0, False), (0.5, True)):
        task.loss(task.batches(0, progress)[2]).backward()
        gradients = [part.grad is not None for part in tower.encoder.parameters()]
        assert all(gradients) if learns else not any(gradients)


def test_pictures_fill_up_as_the_model_learns() -> None:
    task = training.QuestionTask(tiny_model(), seed=0)
    for stage, (least, most) in enumerate(training.STAGES):
        task.accuracy = {"attribute": training.NEXT_AT} if stage else {}
        assert {len(scene.things) for scene in asked(task)} <= set(range(least, most + 1))
        assert task.stage == stage and not task.accuracy
    task.accuracy["attribute"] = 1.0
    asked(task)
    assert task.stage == len(training.STAGES) - 1 and task.accuracy
    other = training.QuestionTask(tiny_model(), seed=0)
    other.restore(task.state())
    assert other.state() == task.state()


def asked(task: training.QuestionTask) -> list[Scene]:
    """Return the scenes of the batches' first kind."""
    kept: list[Scene] = []
    draw = data.SHEETS["distinct"]

    def keep(*arguments: Any) -> data.Sheet:
        sheet = draw(*arguments)
        kept.extend(sheet.scenes)
        return sheet

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(data.SHEETS, "distinct", keep)
        for step in range(3):
            task.batches(step, progress=0.0)
    return kept


@pytest.mark.parametrize("knows", (True, False))
def test_warmup_loss_is_zero_for_who_knows_all_and_entropy_for_who_knows_nothing(
    knows: bool,
) -> None:
    task = WarmupTask(tiny_tower(), seed=0)
    (batch,) = task.batches(step=0, progress=0.0)
    labels = [
        one_hot(part, size) for part, size in zip(batch["labels"].unbind(-1), CLASSES, strict=True)
    ]
    rows, columns = torch.meshgrid(torch.arange(PATCHES), torch.arange(PATCHES), indexing="ij")
    places = torch.stack([rows, columns], -1).reshape(1, -1, 2) / (PATCHES - 1) * 2 - 1
    known = (
        [100.0 * knows * label for label in labels],
        knows * places.expand(len(labels[0]), -1, -1),
    )
    task.model.forward = lambda pixels: known
    blind = sum(math.log(size) for size in CLASSES) + places.square().mean().item()
    assert task.loss(batch).item() == pytest.approx(0 if knows else blind, rel=1e-5, abs=1e-6)


@pytest.fixture
def tiny_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "tower_config", tiny_tower)
    monkeypatch.setattr(training, "build", lambda settings, seed: tiny_model(seed))
    monkeypatch.setattr(training, "MIX", dict.fromkeys(training.MIX, 1))


@pytest.mark.usefixtures("tiny_shapes")
def test_a_run_writes_an_ordinary_folder_and_leaves_its_tower(tmp_path: Path) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    training.train(out, Settings(work, steps=3))
    assert not (work / "questions" / "state.pt").exists()
    record = json.loads((out / "training.json").read_text())
    assert record["steps"] == 3 and record["images_seen"] == 15
    model = AutoModelForImageTextToText.from_pretrained(out, dtype=torch.float32)
    assert isinstance(model, LlavaForConditionalGeneration)
    assert AutoTokenizer.from_pretrained(out).get_vocab() == word_tokenizer(WORDS).get_vocab()
    for name, expected in (
        ("preprocessor_config.json", PREPROCESSOR),
        ("processor_config.json", PROCESSOR),
    ):
        assert json.loads((out / name).read_text()) == expected
    tower = CLIPVisionModel.from_pretrained(work / "warmup" / "tower")
    assert tower.config.hidden_size == 32


def test_saving_rounds_to_half_precision_only(tmp_path: Path) -> None:
    model = tiny_model()
    before = {name: part.half() for name, part in model.state_dict().items()}
    save(tmp_path, model)
    after = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float16)
    assert {name for name, part in after.state_dict().items()} == set(before)
    assert all(torch.equal(part, before[name]) for name, part in after.state_dict().items())


def test_shipped_checkpoint_is_small_half_precision_and_documented() -> None:
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) <= 16 * 2**20
    settings = json.loads((CHECKPOINT / "config.json").read_text())
    assert settings["dtype"] == "float16" and settings["image_seq_length"] == 196
    assert settings["text_config"]["num_key_value_heads"] == 4
    with safe_open(CHECKPOINT / "model.safetensors", "pt") as weights:
        kinds = {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
    assert kinds == {"F16"}
    card = (CHECKPOINT / "README.md").read_text()
    assert all(name in card for name in TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_shipped_model_answers_from_the_picture_and_not_from_another(name: str) -> None:
    task = task_named(name)
    trained = answers_of(CHECKPOINT)
    seen = run_task(task, trained, 20, EVALUATION_SEED).score.mean
    misled = run_task(task, Misled(trained), 20, EVALUATION_SEED).score.mean
    assert seen >= 0.9
    assert misled <= seen - 0.25
