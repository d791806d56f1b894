"""Train family `vlm`: the tower on patches first, then everything on questions."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import CLIPVisionModel, LlavaForConditionalGeneration
from transformers.utils import logging

from effc.evaluate.tasks.base import EVALUATION_SEED, stream
from examples.zoo.trainer import Progress, Settings, Trainer
from examples.zoo.vlm import data
from examples.zoo.vlm.folder import save
from examples.zoo.vlm.model import build, config, tower_config
from examples.zoo.vlm.warmup import WarmupTask, draw_scene, patch_accuracy
from examples.zoo.words import EOS_ID

WARMUP_SHARE = 0.1
# Sheets of a step: one micro-batch of each kind.
MIX = {"distinct": 8, "count": 5, "row": 5, "images": 3}
# Fewest and most things in the pictures of a stage. With many things from the start, the gradient
# does not find the one that is asked for.
STAGES = ((1, 2), (2, 3), (3, 5))
NEXT_AT = 0.9  # running accuracy on attributes
MATRIX_RATE, OTHER_RATE = 2e-3, 1.5e-3
# Share of the budget from which on the tower learns, too. Before, a decoder that cannot read yet
# would only undo what the tower knows.
TOWER_FROM = 0.2
# Share of the last step in the running accuracies.
NEW = 0.02


class QuestionTask:
    """Answer questions about scenes; the loss is on answers only."""

    finished = False

    def __init__(self, model: LlavaForConditionalGeneration, seed: int) -> None:
        # Masked and in bf16, plain products and a softmax are faster on a CPU than a fused kernel.
        model.set_attn_implementation("eager")
        self.model = model
        self.seed = seed
        self.stage = 0
        self.accuracy: dict[str, float] = {}

    @property
    def status(self) -> str:
        """Stage and running share of answers' words that are right, by task."""
        shares = (f"{task} {share:.2f}" for task, share in self.accuracy.items())
        return "  ".join([f"stage {self.stage}", *shares])

    def state(self) -> dict[str, Any]:
        """Return stage and running accuracies."""
        return {"stage": self.stage, "accuracy": self.accuracy}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""
        self.stage, self.accuracy = state["stage"], state["accuracy"]

    def batches(self, step: int, progress: float) -> list[dict[str, Tensor]]:
        """Draw a step's sheets, a micro-batch per kind; the tower joins in after a while."""
        self.model.model.vision_tower.requires_grad_(progress >= TOWER_FROM)
        if self.stage + 1 < len(STAGES) and self.accuracy.get("attribute", 0.0) >= NEXT_AT:
            self.stage, self.accuracy = self.stage + 1, {}
        drawn = []
        for kind, (name, count) in enumerate(MIX.items()):
            first = (step * len(MIX) + kind) * max(MIX.values())
            limits = STAGES[self.stage] if name == "distinct" else ()
            streams = (stream(self.seed, first + index) for index in range(count))
            drawn.append(data.batch([data.SHEETS[name](rng, *limits) for rng in streams]))
        return drawn

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean cross-entropy of the answers' words, eos included."""
        states = self.model.model(
            input_ids=batch["input_ids"],
            pixel_values=batch["pixel_values"],
            attention_mask=data.mask(batch["segments"]),
            position_ids=batch["position_ids"],
            use_cache=False,
        ).last_hidden_state
        answered = batch["labels"] != data.IGNORED
        logits = self.model.lm_head(states[answered]).float()
        labels = batch["labels"][answered]
        self._count(logits.argmax(-1) == labels, labels, batch["tasks"][answered])
        return cross_entropy(logits, labels)

    def _count(self, right: Tensor, labels: Tensor, tasks: Tensor) -> None:
        words = labels != EOS_ID
        for index in tasks.unique().tolist():
            share = right[words & (tasks == index)].float().mean().item()
            name = data.TASKS[index]
            self.accuracy[name] = (1 - NEW) * self.accuracy.get(name, share) + NEW * share


def train(out: Path, settings: Settings) -> None:
    """Train the model and write an ordinary transformers folder.

    Args:
        out: Where the checkpoint goes; files of an earlier one are replaced.
        settings: Budget, seed and the folder of the resumable state. The warmed tower stays there
            as `tower`, a folder that other families start from.
    """
    logging.disable_progress_bar()
    tower = warm_tower(replace_budget(settings, WARMUP_SHARE, "warmup"))
    model = build(config(), settings.seed)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    stage = replace_budget(settings, 1 - WARMUP_SHARE, "questions")
    stage = replace(stage, matrix_rate=MATRIX_RATE, other_rate=OTHER_RATE)
    task = QuestionTask(model, settings.seed)
    progress = Trainer(task, stage).run()
    save(out, model)
    record = describe_run(task, progress, stage, settings)
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    # Left behind, the state of a finished run would be taken up by the next one.
    stage.state_file.unlink()
    print(f"wrote {out}")


def warm_tower(settings: Settings) -> CLIPVisionModel:
    """Train a tower on patches; one that lies ready in the work folder is taken as it is.

    Returns:
        The tower, also written to `settings.work_dir / "tower"` in fp32.
    """
    folder = settings.work_dir / "tower"
    if (folder / "config.json").exists():
        return CLIPVisionModel.from_pretrained(folder)
    task = WarmupTask(tower_config(), settings.seed)
    Trainer(task, settings).run()
    scenes = [draw_scene(stream(EVALUATION_SEED, index)) for index in range(64)]
    shares = patch_accuracy(task.model.cpu().eval(), scenes)
    print("patches of things read right:", " ".join(f"{share:.3f}" for share in shares))
    task.model.tower.save_pretrained(folder)
    return task.model.tower


def replace_budget(settings: Settings, share: float, stage: str) -> Settings:
    """Return the settings of one stage of a run: a share of its budget and a folder of its own."""
    steps = None if settings.steps is None else max(1, round(settings.steps * share))
    minutes = None if settings.minutes is None else settings.minutes * share
    return replace(settings, steps=steps, minutes=minutes, work_dir=settings.work_dir / stage)


def describe_run(
    task: QuestionTask, progress: Progress, stage: Settings, settings: Settings
) -> dict[str, Any]:
    """Collect what the model card says about the run."""
    last = progress.losses[-100:]
    images = sum(count * (2 if name == "images" else 1) for name, count in MIX.items())
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "seed": settings.seed,
        "machine": f"a {os.cpu_count()}-core {platform.machine()} CPU",
        "threads": torch.get_num_threads(),
        "warmup_minutes": settings.minutes and settings.minutes * WARMUP_SHARE,
        "minutes": round(progress.seconds / 60, 1),
        "steps": progress.step,
        "images_seen": progress.step * images,
        "tokens_seen": progress.tokens,
        "final_train_loss": round(sum(last) / len(last), 4),
        "final_train_accuracy": {name: round(share, 4) for name, share in task.accuracy.items()},
    }
