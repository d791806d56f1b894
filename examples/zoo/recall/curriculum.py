"""From short haystacks to long ones, as fast as the model learns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import Qwen3ForCausalLM

from examples.zoo.recall import data
from examples.zoo.recall.data import IGNORED, PARTS

LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)
NEXT_AT, FINISHED_AT = 0.9, 0.98
MICRO_TOKENS = 1024
MICROS = 2
# How much more often a task is drawn that holds up the stage.
FOCUS = 4
# A score weighs the last batches most, about this many, and counts once there are so many.
MEMORY, ENOUGH = 8, 3


@dataclass
class Scores:
    """Running accuracies on items that the model had not seen when it answered."""

    sums: list[float] = field(default_factory=lambda: [0.0] * len(PARTS))
    counts: list[int] = field(default_factory=lambda: [0] * len(PARTS))

    def add(self, part: int, accuracy: float) -> None:
        """Take in the accuracy of one micro-batch of part number `part`."""
        self.sums[part] += (accuracy - self.sums[part]) / MEMORY
        self.counts[part] += 1

    def mean(self, part: int) -> float:
        """Return the weighted mean of what was added, 0 before there is anything."""
        # The sums start from zero, which this corrects.
        weight = 1 - (1 - 1 / MEMORY) ** self.counts[part]
        return self.sums[part] / weight if weight else 0.0

    def reached(self, bar: float) -> bool:
        """Whether every task that the curriculum waits for is at least this good."""
        gates = [index for index, part in enumerate(PARTS) if part.gates]
        return all(self.counts[i] >= ENOUGH and self.mean(i) >= bar for i in gates)


class RecallTraining:
    """The trainer's task: micro-batches of one recall task each, at the stage's length or below."""

    def __init__(self, model: Qwen3ForCausalLM, seed: int) -> None:
        self.model = model
        self.seed = seed
        self.stage = 0
        self.scores = Scores()

    @property
    def finished(self) -> bool:
        """Whether the longest haystacks are learnt."""
        return self.stage == len(LENGTHS) - 1 and self.scores.reached(FINISHED_AT)

    @property
    def status(self) -> str:
        """Stage and accuracies, in the order of `PARTS`."""
        return f"T {LENGTHS[self.stage]}  " + " ".join(map(self._score, range(len(PARTS))))

    def state(self) -> dict[str, Any]:
        """Return stage and scores."""
        return {"stage": self.stage, **vars(self.scores)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""
        self.stage, self.scores = state["stage"], Scores(state["sums"], state["counts"])

    def batches(self, step: int, progress: float) -> list[dict[str, Tensor]]:
        """Draw half of the micro-batches at the stage's length, the rest at any so far."""
        if self.scores.reached(NEXT_AT) and self.stage < len(LENGTHS) - 1:
            self.stage, self.scores = self.stage + 1, Scores()
        return [self._batch(step * MICROS + micro, micro) for micro in range(MICROS)]

    def _score(self, part: int) -> str:
        return f"{self.scores.mean(part):.2f}" if self.scores.counts[part] else "-"

    def _batch(self, index: int, micro: int) -> dict[str, Tensor]:
        # Two numbers after the seed: a stream that no item of any set has.
        rng = np.random.Generator(np.random.PCG64([self.seed, index, 1]))
        stage = self.stage if micro % 2 == 0 else int(rng.integers(self.stage + 1))
        part = self._choose(rng)
        length = LENGTHS[stage]
        rows = max(1, MICRO_TOKENS // PARTS[part].tokens(length))
        drawn = data.batch(PARTS[part], rows, length, self.seed, index)
        return {**drawn, "part": torch.tensor(part), "stage": torch.tensor(stage)}

    def _choose(self, rng: np.random.Generator) -> int:
        """Draw a task, more often one that is not learnt yet at this stage."""
        learnt = np.array([self.scores.mean(index) >= NEXT_AT for index in range(len(PARTS))])
        shares = np.array([part.share for part in PARTS]) * np.where(learnt, 1, FOCUS)
        return int(rng.choice(len(PARTS), p=shares / shares.sum()))

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the mean cross-entropy of the answers' tokens, and keep the accuracy."""
        labels = batch["labels"]
        asked = labels != IGNORED
        states = self.model.model(input_ids=batch["input_ids"], use_cache=False).last_hidden_state
        logits = self.model.lm_head(states[asked]).float()
        if int(batch["stage"]) == self.stage:
            right = torch.ones_like(asked)
            right[asked] = logits.argmax(-1) == labels[asked]
            self.scores.add(int(batch["part"]), answers_right(right, labels))
        return cross_entropy(logits, labels[asked])


def answers_right(right: Tensor, labels: Tensor) -> float:
    """Return the share of answers without a wrong token; eos ends an answer.

    Args:
        right: [B, T], whether the token was predicted; true where nothing was asked.
        labels: [B, T].
    """
    ends = labels.flatten() == data.EOS_ID
    turn = ends.cumsum(0) - ends.long()
    wrong = torch.zeros(int(ends.sum()) + 1).index_add_(0, turn, (~right.flatten()).float())
    return (wrong[:-1] == 0).float().mean().item()
