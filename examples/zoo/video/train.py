"""Train family `video`: first what single patches show, then how they move, then to answer.

Visual tokens are taught directly what they stand for, by heads that are thrown away afterwards.
Answers alone would do, but they teach several hundred tokens with one word.
"""

from __future__ import annotations

import json
import os
import platform
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear
from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

from effc.evaluate.tasks import clips
from effc.evaluate.tasks.moving import DIRECTIONS, SHAPES, SPEEDS
from effc.evaluate.tasks.rendering import COLOURS
from examples.zoo.trainer import Progress, Settings, Trainer
from examples.zoo.video import data
from examples.zoo.video.folder import save
from examples.zoo.video.model import FRAME_TOKENS, build, config

CLIPS = 16  # in a step
MICRO_CLIPS = 8
ENOUGH = 0.9  # accuracy on fresh clips that ends a stage
LEARNT = 0.99  # accuracy that ends the last one
MEMORY = 0.98  # of the running accuracies, per step
HINT = 0.3  # weight of the heads beside the answers


@dataclass(frozen=True)
class Stage:
    """A step of the curriculum.

    Attributes:
        name: For the log.
        frames: Lengths of clips; they take turns, step by step.
        teaches: What is learnt: "patches", "motion" as well, or "answers" as well.
    """

    name: str
    frames: tuple[int, ...]
    teaches: str = "answers"


STAGES = (
    Stage("patches", (8,), teaches="patches"),
    Stage("motion", (8,), teaches="motion"),
    Stage("short", (8,)),
    Stage("long", (8, 16)),
)


# What a visual token is to know after so many layers of the decoder: one of some words, or one of
# so many classes.
HINTS: tuple[Mapping[str, Sequence[str] | int], ...] = (
    {"filled": 2, "colour": (*COLOURS,), "shape": SHAPES, "place": FRAME_TOKENS},
    {"one_ago": FRAME_TOKENS, "two_ago": FRAME_TOKENS, "seen": clips.MOST},
    {"direction": (*DIRECTIONS,), "speed": (*SPEEDS,)},
    {"rank": clips.ORDER},
)


class Coached(nn.Module):
    """The model with the heads that say what its visual tokens know.

    Words are told apart by the model's own embeddings. That brings what is seen and what is said
    together, which questions about one object among several would otherwise take long to do.
    """

    def __init__(
        self, llava: LlavaForConditionalGeneration, words: PreTrainedTokenizerFast
    ) -> None:
        super().__init__()
        width = llava.config.text_config.hidden_size
        self.llava = llava
        self.norms, self.heads = nn.ModuleDict(), nn.ModuleDict()
        self.tokens: dict[str, list[int]] = {}
        for name, known in (pair for hints in HINTS for pair in hints.items()):
            self.norms[name] = nn.LayerNorm(width)
            if isinstance(known, int):
                self.heads[name] = nn.Linear(width, known)
            else:
                self.tokens[name] = words.convert_tokens_to_ids([*known])

    def tell(self, name: str, hidden: Tensor) -> Tensor:
        """Return logits [N, classes] of a hint, given hidden states [N, W]."""
        states = self.norms[name](hidden)
        if name in self.heads:
            return self.heads[name](states)
        return linear(states, self.llava.get_input_embeddings().weight[self.tokens[name]])


class ClipTask:
    """Answers about clips, weighted loss on answers only, in stages."""

    def __init__(self, model: Coached, words: PreTrainedTokenizerFast, seed: int) -> None:
        self.model = model
        self.words = words
        self.seed = seed
        self.stage = 0
        self.scores = defaultdict[str, float](float)  # running accuracies of this stage

    @property
    def finished(self) -> bool:
        """Whether the last stage is learnt."""
        goals = [self.scores[name] for name in self._goals()]
        return self.stage == len(STAGES) - 1 and min(goals) >= LEARNT

    @property
    def status(self) -> str:
        """Stage and running accuracies, for the log."""
        scores = "  ".join(f"{name} {score:.2f}" for name, score in self.scores.items())
        return f"{STAGES[self.stage].name}: {scores}"

    def state(self) -> dict[str, Any]:
        return {"stage": self.stage, "scores": dict(self.scores)}

    def restore(self, state: dict[str, Any]) -> None:
        self.stage, self.scores = state["stage"], defaultdict(float, state["scores"])

    def batches(self, step: int, progress: float) -> list[dict[str, Tensor]]:
        """Draw clips that no step has seen; see `data.batch`."""
        self._advance()
        stage = STAGES[self.stage]
        length = stage.frames[step % len(stage.frames)]
        ask = stage.teaches == "answers"
        first = step * CLIPS
        return [
            data.batch(self.words, self.seed, first + offset, MICRO_CLIPS, length, ask)
            for offset in range(0, CLIPS, MICRO_CLIPS)
        ]

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the loss of the current stage."""
        llava = self.model.llava.model
        features = llava.get_image_features(pixel_values=batch["pixel_values"]).pooler_output
        features = torch.cat(list(features))
        tokens = batch["filled"].shape[1]
        teaches = STAGES[self.stage].teaches
        if teaches == "patches":
            return self._hints(batch, features.unflatten(0, (-1, tokens)), HINTS[0])
        hidden = self._read(batch, features)
        hints = features.new_zeros(())
        for layer, labels in zip(hidden, HINTS, strict=False):
            hints = hints + self._hints(batch, layer[:, 1 : 1 + tokens], labels)
        if teaches == "motion":
            return hints
        return self._answers(batch, hidden[-1]) + HINT * hints

    def _read(self, batch: dict[str, Tensor], features: Tensor) -> tuple[Tensor, ...]:
        llava = self.model.llava.model
        embeds = llava.get_input_embeddings()(batch["input_ids"])
        image = (batch["input_ids"] == data.IMAGE_ID)[..., None].expand_as(embeds)
        embeds = embeds.masked_scatter(image, features.to(embeds.dtype))
        return llava.language_model(
            inputs_embeds=embeds,
            attention_mask=data.attention_mask(batch["block"]),
            position_ids=batch["position_ids"],
            use_cache=False,
            output_hidden_states=True,
        ).hidden_states

    def _hints(self, batch: dict[str, Tensor], hidden: Tensor, names: Iterable[str]) -> Tensor:
        """Return the loss of some heads on visual tokens [B, frames * cells, W]."""
        total = hidden.new_zeros(())
        for name in names:
            known = batch[name] != data.UNKNOWN
            logits = self.model.tell(name, hidden[known]).float()
            total = total + cross_entropy(logits, batch[name][known])
            right = (logits.argmax(-1) == batch[name][known]).float().mean()
            self._note(name, right.item())
        return total

    def _answers(self, batch: dict[str, Tensor], hidden: Tensor) -> Tensor:
        asked = batch["target"] != data.UNKNOWN
        logits = self.model.llava.lm_head(hidden[asked]).float()
        target, weight = batch["target"][asked], batch["weight"][asked]
        losses = cross_entropy(logits, target, reduction="none")
        self._note_answers(batch, asked, logits.argmax(-1) == target)
        return (losses * weight).sum() / weight.sum()

    @torch.no_grad()
    def _note_answers(self, batch: dict[str, Tensor], asked: Tensor, right: Tensor) -> None:
        """Count answers whose every word that is not filler is right, task by task."""
        row = torch.arange(len(asked), device=asked.device)[:, None].expand_as(asked)
        numbers = (row * (data.BLOCKS + 2) + batch["block"])[asked]
        failed = torch.zeros(len(asked) * (data.BLOCKS + 2), dtype=torch.bool)
        tasks = torch.full_like(failed, -1, dtype=torch.long)
        tasks[numbers.cpu()] = batch["task"][asked].cpu()
        failed[numbers[~right & (batch["weight"][asked] == 1)].cpu()] = True
        for place, task in enumerate(data.TASKS):
            if (tasks == place).any():
                self._note(task.name, 1 - failed[tasks == place].float().mean().item())

    def _note(self, subject: str, score: float) -> None:
        self.scores[subject] = MEMORY * self.scores[subject] + (1 - MEMORY) * score

    def _advance(self) -> None:
        last = self.stage == len(STAGES) - 1
        if not last and min(self.scores[name] for name in self._goals()) >= ENOUGH:
            self.stage += 1
            self.scores.clear()

    def _goals(self) -> list[str]:
        teaches = STAGES[self.stage].teaches
        tasks = [task.name for task in data.TASKS]
        return {"patches": [*HINTS[0]], "motion": [*HINTS[2]], "answers": tasks}[teaches]


def train(out: Path, settings: Settings) -> None:
    """Train the model and write an ordinary transformers folder.

    Args:
        out: Where the checkpoint goes; files of an earlier one are replaced.
        settings: Budget, seed and the folder of the resumable state.
    """
    words = data.tokenizer()
    llava = build(config(len(words)), settings.seed)
    task = ClipTask(Coached(llava, words), words, settings.seed)
    progress = Trainer(task, settings).run()
    save(out, llava, words)
    record = describe_run(task, progress, settings)
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    # Left behind, the state of a finished run would be taken up by the next one.
    settings.state_file.unlink()
    print(f"wrote {out}")


def describe_run(task: ClipTask, progress: Progress, settings: Settings) -> dict[str, Any]:
    """Collect what the model card says about the run."""
    last = progress.losses[-100:]
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "seed": settings.seed,
        "machine": f"a {os.cpu_count()}-core {platform.machine()} CPU",
        "threads": torch.get_num_threads(),
        "steps": progress.step,
        "clips": progress.step * CLIPS,
        "tokens_seen": progress.tokens,
        "minutes": round(progress.seconds / 60, 1),
        "stage": STAGES[task.stage].name,
        "accuracy": {name: round(score, 4) for name, score in task.scores.items()},
        "final_train_loss": round(sum(last) / len(last), 4),
    }
