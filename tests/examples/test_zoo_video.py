"""The reference model `video`: its rows, its loss, its resumable runs, and the shipped weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, LlavaForConditionalGeneration

from effc.evaluate.scoring import run_task
from effc.evaluate.tasks import clips
from effc.evaluate.tasks.base import stream
from effc.evaluate.tasks.moving import DIRECTIONS, GRID, SHAPES, SPEEDS, look, paint
from effc.evaluate.tasks.rendering import COLOURS
from effc.runtime.images import prepare_images
from examples.zoo.__main__ import FAMILIES
from examples.zoo.scores import answers_of
from examples.zoo.trainer import Settings, Trainer
from examples.zoo.video import data
from examples.zoo.video.evaluate import Looking, last_frame_only, without_images
from examples.zoo.video.folder import save
from examples.zoo.video.model import CONTEXT, FRAME_TOKENS, IMAGE_ID, build, config
from examples.zoo.video.train import ENOUGH, HINTS, STAGES, ClipTask, Coached
from examples.zoo.words import BOS_ID, EOS_ID

CHECKPOINT = FAMILIES["video"].checkpoint
WORDS = data.tokenizer()


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def shipped() -> LlavaForConditionalGeneration:
    return LlavaForConditionalGeneration.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()


def tiny(seed: int = 0) -> LlavaForConditionalGeneration:
    return build(config(len(WORDS), width=64, layers=3), seed)


def asked_alone(batch: dict[str, Tensor], row: int, block: int) -> Tensor:
    """The tokens of a clip with one of its questions and the answer."""
    of_row = batch["block"][row]
    return batch["input_ids"][row][(of_row == 0) | (of_row == block)]


def test_rows_are_encoded_as_the_tokenizer_does() -> None:
    batch = data.batch(WORDS, seed=0, first=0, count=4, frames=8)
    for row in range(4):
        _, blocks = data.draw_clip(stream(0, row), row, 8)
        for number, block in enumerate(blocks, start=1):
            ids = WORDS(f"{'<image> ' * 8}{block.question} {block.answer}").input_ids
            (first, *_), images = ids, [IMAGE_ID] * 8
            assert first == BOS_ID and ids[1:9] == images
            expected = [BOS_ID, *[IMAGE_ID] * (8 * FRAME_TOKENS), *ids[9:]]
            assert asked_alone(batch, row, number).tolist() == expected


def test_targets_are_the_answers_and_eos_and_nothing_else() -> None:
    batch = data.batch(WORDS, seed=0, first=0, count=8, frames=8)
    for row in range(8):
        _, blocks = data.draw_clip(stream(0, row), row, 8)
        for number, block in enumerate(blocks, start=1):
            inside = batch["block"][row] == number
            target = batch["target"][row][inside]
            said = target[target != data.UNKNOWN].tolist()
            assert said == [*WORDS(block.answer).input_ids[1:], EOS_ID]
            weight = batch["weight"][row][inside][target != data.UNKNOWN].tolist()
            visual = [word in clips.VISUAL_WORDS for word in block.answer.split()]
            assert [each == 1 for each in weight] == [*visual, True]
            assert (batch["task"][row][inside] == block.task).all()
        outside = (batch["block"][row] == 0) | (batch["block"][row] == -1)
        assert (batch["target"][row][outside] == data.UNKNOWN).all()


def test_every_task_is_asked_and_answered_as_the_task_does() -> None:
    tasks = set()
    for index in range(40):
        clip, blocks = data.draw_clip(stream(3, index), index, 8)
        tasks |= {block.task for block in blocks}
        for block in blocks[:-1]:
            going = [m.colour for m in clip.movers if m.direction in block.question.split()]
            if block.task == 0:
                (mover,) = (m for m in clip.movers if m.colour in block.question.split())
                assert block.answer == mover.direction
            elif block.task == 1:
                assert clips.COUNTS.index(block.answer) == len(going)
            elif going:
                assert [block.answer] == going
            else:
                place = {"first": 0, "second": 1, "last": -1}[block.question.split()[3]]
                assert block.answer == clip.movers[place].colour
        assert blocks[-1].question == clips.CAPTION_QUESTION
        assert len(clips.visual_words(blocks[-1].answer)) == 1 + 4 * len(clip.movers)
    assert tasks == {0, 1, 2, 3}


@torch.inference_mode()
def test_packed_questions_are_as_if_asked_alone() -> None:
    """The loss on a packed row is that of its questions, each read by the library's own model."""
    model = tiny().eval()
    task = ClipTask(Coached(model, WORDS).eval(), WORDS, seed=0)
    task.stage = len(STAGES) - 1
    batch = data.batch(WORDS, seed=5, first=0, count=2, frames=8)
    features = torch.cat(
        list(model.model.get_image_features(pixel_values=batch["pixel_values"]).pooler_output)
    )
    packed = model.lm_head(task._read(batch, features)[-1])
    for row in range(2):
        pixels = batch["pixel_values"].unflatten(0, (2, 8))[row]
        for block in range(1, int(batch["block"][row].max()) + 1):
            ids = asked_alone(batch, row, block)[None]
            alone = model(input_ids=ids, pixel_values=pixels).logits[0, 1 + 8 * FRAME_TOKENS :]
            together = packed[row][batch["block"][row] == block]
            torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_labels_of_cells_are_what_the_frames_show() -> None:
    for index in range(30):
        clip, _ = data.draw_clip(stream(11, index), index, 8)
        labels = {
            name: label.reshape(8, GRID, GRID) for name, label in data.cell_labels(clip).items()
        }
        movers = {mover.colour: mover for mover in clip.movers}
        cells: dict[tuple[str, int], tuple[int, int]] = {}
        for frame, pixels in enumerate(paint(clip)):
            seen = look(pixels)
            for each in seen:
                mover = movers[each.colour]
                cells[each.colour, frame] = each.cell
                at = (frame, *each.cell)
                assert labels["filled"][at] == 1
                assert tuple(COLOURS)[labels["colour"][at]] == each.colour
                assert SHAPES[labels["shape"][at]] == each.shape
                assert labels["place"][at] == GRID * each.cell[0] + each.cell[1]
                assert labels["rank"][at] == clip.movers.index(mover)
                assert labels["seen"][at] == sum(m.appears <= frame for m in clip.movers) - 1
                if labels["direction"][at] != data.UNKNOWN:
                    assert tuple(DIRECTIONS)[labels["direction"][at]] == mover.direction
                if labels["speed"][at] != data.UNKNOWN:
                    assert tuple(SPEEDS)[labels["speed"][at]] == mover.speed
                for ago, name in ((1, "one_ago"), (2, "two_ago")):
                    assert (labels[name][at] == data.UNKNOWN) == (frame - ago < mover.appears)
                    if (before := cells.get((each.colour, frame - ago))) is not None:
                        assert labels[name][at] == GRID * before[0] + before[1]
            shown = {each.cell for each in seen}
            for cell in np.ndindex(GRID, GRID):
                if cell not in shown:
                    assert labels["filled"][(frame, *cell)] in (0, data.UNKNOWN)
                    assert labels["direction"][(frame, *cell)] == data.UNKNOWN


def test_the_loss_is_a_weighted_mean_over_answers_and_hints() -> None:
    task = ClipTask(Coached(tiny(), WORDS), WORDS, seed=0)
    task.stage = len(STAGES) - 1
    batch = data.batch(WORDS, seed=1, first=0, count=3, frames=8)
    loss = task.loss(batch)
    task.model.zero_grad()
    loss.backward()
    assert all(p.grad is not None for p in task.model.heads.parameters())
    with torch.no_grad():
        features = task.model.llava.model.get_image_features(pixel_values=batch["pixel_values"])
        hidden = task._read(batch, torch.cat(list(features.pooler_output)))
        total = 0.0
        for layer, names in zip(hidden, HINTS, strict=False):
            for name in names:
                states = task.model.norms[name](layer[:, 1 : 1 + 8 * FRAME_TOKENS])
                if isinstance(names[name], int):
                    logits = task.model.heads[name](states)
                else:
                    table = [WORDS.get_vocab()[word] for word in names[name]]
                    logits = task.model.llava.lm_head(states)[..., table]
                total += 0.3 * cross_entropy(
                    logits.flatten(0, 1), batch[name].flatten(), ignore_index=data.UNKNOWN
                )
        losses = cross_entropy(
            task.model.llava.lm_head(hidden[-1]).flatten(0, 1),
            batch["target"].flatten(),
            ignore_index=data.UNKNOWN,
            reduction="none",
        )
        weight = batch["weight"].flatten()
        total += (losses * weight).sum() / weight.sum()
    torch.testing.assert_close(loss.detach(), total, rtol=1e-5, atol=1e-5)


def test_answers_count_by_their_visual_words() -> None:
    task = ClipTask(Coached(tiny(), WORDS), WORDS, seed=0)
    batch = data.batch(WORDS, seed=1, first=0, count=2, frames=8)
    asked = batch["target"] != data.UNKNOWN
    filler = batch["weight"][asked] != 1
    task._note_answers(batch, asked, ~filler)  # filler all wrong
    first = dict(task.scores)
    assert first == {each.name: pytest.approx(0.02) for each in data.TASKS}
    eos = batch["target"][asked] == EOS_ID
    task._note_answers(batch, asked, ~eos)  # no answer ends
    assert dict(task.scores) == {name: pytest.approx(0.98 * 0.02) for name in first}


def test_stages_follow_when_all_goals_are_reached() -> None:
    task = ClipTask(Coached(tiny(), WORDS), WORDS, seed=0)
    assert [stage.teaches for stage in STAGES] == ["patches", "motion", "answers", "answers"]
    for number in range(len(STAGES) - 1):
        assert task.stage == number and not task.finished
        for name in task._goals()[1:]:
            task.scores[name] = 1.0
        task.batches(0, 0.0)
        assert task.stage == number
        task.scores[task._goals()[0]] = ENOUGH
        task.batches(0, 0.0)
    assert task.stage == len(STAGES) - 1 and not task.scores
    lengths = {b["pixel_values"].shape[0] for step in (0, 1) for b in task.batches(step, 0.5)}
    assert lengths == {8 * 8, 8 * 16}
    task.scores.update({name: 0.995 for name in task._goals()})
    assert task.finished


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    runs = []
    for stops in ((3,), (1, 2, 3)):
        settings = Settings(tmp_path / str(len(stops)), steps=3, seed=4)
        for stop in stops:
            task = ClipTask(Coached(tiny(4), WORDS), WORDS, seed=4)
            task.stage = 2
            Trainer(task, settings, report=lambda _: None).run(stop)
        runs.append((task.model.state_dict(), task.state()))
    assert runs[0][1] == runs[1][1] and runs[0][1]["scores"]
    for name, value in runs[0][0].items():
        assert torch.equal(value, runs[1][0][name]), name


def test_the_folder_prepares_images_as_training_did(tmp_path: Path) -> None:
    save(tmp_path, tiny(), WORDS)
    frames = np.stack(clips.Caption().items(1, 5)[0].images)
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    prepared = prepare_images(list(frames), settings)
    torch.testing.assert_close(prepared, data.normalize(frames), rtol=0, atol=1e-6)
    words = AutoTokenizer.from_pretrained(tmp_path)
    assert words("<image> describe the clip .").input_ids == (
        WORDS("<image> describe the clip .").input_ids
    )


@pytest.mark.parametrize("change", [without_images, last_frame_only])
def test_other_views_keep_the_question(change) -> None:
    item = clips.Direction().items(1, 5)[0]
    changed = change(item)
    assert (changed.prompt, changed.answer) == (item.prompt, item.answer)
    assert len(changed.images) == len(item.images)
    assert all((image == changed.images[0]).all() for image in changed.images)


def test_the_longest_clip_and_caption_fit_the_context() -> None:
    longest = max(
        len(item.answer.split())
        for item in clips.Caption().items(200, 1)
        if item.facets["objects"] == "3"
    )
    assert 1 + max(clips.FRAMES) * FRAME_TOKENS + 4 + longest + 1 <= CONTEXT


def test_shipped_weights_are_small_and_half_precision() -> None:
    size = sum(path.stat().st_size for path in CHECKPOINT.iterdir())
    assert size <= 16 * 2**20
    with safe_open(CHECKPOINT / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float16}  # noqa: SIM118
    assert json.loads((CHECKPOINT / "training.json").read_text())["stage"] == STAGES[-1].name


@pytest.mark.parametrize("task", data.TASKS, ids=lambda task: task.name)
def test_shipped_weights_solve_every_task(
    task: clips.Direction, shipped: LlavaForConditionalGeneration
) -> None:
    result = run_task(task, answers_of(CHECKPOINT, shipped), 40)
    assert result.score.mean >= 0.95
    assert min(score.mean for score in result.facets["frames"].values()) >= 0.9


@pytest.mark.parametrize("task", data.TASKS[:3], ids=lambda task: task.name)
def test_shipped_weights_need_to_see(
    task: clips.Direction, shipped: LlavaForConditionalGeneration
) -> None:
    """Without frames at chance; with the last frame alone at what colours give away."""
    answers = answers_of(CHECKPOINT, shipped)
    seen = 1 / 3 if task.name == "clip.colour-order" else task.chance
    for change, likely in ((without_images, task.chance), (last_frame_only, seen)):
        score = run_task(task, Looking(answers, change), 60).score
        assert score.mean < likely + 3 * (likely * (1 - likely) / 60) ** 0.5
