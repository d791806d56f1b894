"""The trainer that all families share: Muon and AdamW, a budget, and states to resume from.

A family brings a `Task` (model, batches, loss). The trainer brings everything else and knows no
family. Runs end annealed: the learning rate falls to zero as the budget, in minutes or in steps,
is used up. Minutes are those of one busy core (see `clock`), so a machine that is shared does not
cut a run short.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from examples.zoo.optimizers import build_optimizers

FORMAT = 2

# A micro-batch; the tokens of a mapping are counted in its entry "input_ids".
Batch = Tensor | Mapping[str, Tensor]


class Task(Protocol):
    """What a family gives the trainer.

    `batches` must depend on its arguments alone: a resumed run then sees the same data.
    """

    @property
    def model(self) -> nn.Module:
        """The module to train; `loss` runs it."""
        ...

    def batches(self, step: int, progress: float) -> list[Any]:
        """Return the micro-batches of one step, given the share of the budget already used."""
        ...

    def loss(self, batch: Any) -> Tensor:
        """Return the mean loss of one micro-batch."""
        ...


@runtime_checkable
class Curriculum(Protocol):
    """What a task adds if its batches also depend on how well the model does.

    Stage and scores then belong to the state of a run: `batches` must depend on its arguments and
    on this state alone.
    """

    @property
    def finished(self) -> bool:
        """Whether the last stage is learnt: the rest of the run then anneals, see `Progress`."""
        ...

    @property
    def status(self) -> str:
        """A few words for the log, such as stage and accuracy."""
        ...

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs: tensors, numbers, texts, lists and dicts of them."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` returned."""
        ...


@dataclass(frozen=True)
class Settings:
    """How to train; exactly one of `minutes` and `steps` limits the run.

    Attributes:
        matrix_rate: Peak learning rate of the hidden matrices (Muon, scaled to AdamW's RMS).
        other_rate: Peak learning rate of embeddings, norms and biases (AdamW).
        warmup: Share of the budget over which the rates rise from zero.
        anneal_from: Share of the budget after which the rates fall linearly to zero.
    """

    work_dir: Path
    minutes: float | None = None
    steps: int | None = None
    seed: int = 0
    matrix_rate: float = 6e-3
    other_rate: float = 4e-3
    weight_decay: float = 0.1
    warmup: float = 0.02
    anneal_from: float = 0.35
    clip: float = 1.0
    bf16: bool = True
    save_every_s: float = 120.0
    log_every_s: float = 10.0

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.steps is None):
            raise ValueError("give either `minutes` or `steps`, not both and not neither")

    @property
    def state_file(self) -> Path:
        return self.work_dir / "state.pt"


@dataclass
class Progress:
    """How far a run is; saved with the weights.

    Attributes:
        seconds: Time spent in steps, as `clock` counts it.
        scale: The part of the budget that will be used; below 1 if the task was finished early.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    scale: float = 1.0
    losses: list[float] = field(default_factory=list)

    def share(self, settings: Settings) -> float:
        """Return the used share of the budget, 0 to 1."""
        if settings.steps is not None:
            return min(1.0, self.step / (settings.steps * self.scale))
        assert settings.minutes is not None, "Settings checks that one limit is given"
        return min(1.0, self.seconds / (60 * settings.minutes * self.scale))

    def bring_end_forward(self, settings: Settings) -> None:
        """Shorten the budget so that annealing begins now, unless it has begun or warms up."""
        if settings.warmup < (share := self.share(settings)) < settings.anneal_from:
            self.scale *= share / settings.anneal_from


class Trainer:
    """Trains one task until its budget is used up, in one run or in several."""

    def __init__(
        self, task: Task, settings: Settings, report: Callable[[str], None] = print
    ) -> None:
        self.task = task
        self.settings = settings
        self.report = report
        self.progress = Progress()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        task.model.to(self.device).train()
        self.optimizers = build_optimizers(
            task.model, settings.matrix_rate, settings.other_rate, settings.weight_decay
        )
        _seed_everything(settings.seed)

    def run(self, stop_after: int | None = None) -> Progress:
        """Train on from the saved state, if any.

        Args:
            stop_after: Stop, with the state saved, once this many steps are done in all.

        Returns:
            The progress at the end of the run.
        """
        self._resume()
        task = self.task
        saved = logged = time.monotonic()
        while (share := self.progress.share(self.settings)) < 1.0:
            if stop_after is not None and self.progress.step >= stop_after:
                break
            self._step(share)
            if isinstance(task, Curriculum) and task.finished:
                self.progress.bring_end_forward(self.settings)
            now = time.monotonic()
            if now - logged >= self.settings.log_every_s:
                logged = now
                self.report(self._line())
            if now - saved >= self.settings.save_every_s:
                saved = now
                self.save()
        self.save()
        return self.progress

    def save(self) -> None:
        """Write everything that a resumed run needs; a kill while writing harms no older state."""
        self.settings.work_dir.mkdir(parents=True, exist_ok=True)
        partial = self.settings.state_file.with_suffix(".partial")
        torch.save(
            {
                "format": FORMAT,
                "seed": self.settings.seed,
                "model": self.task.model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                "progress": vars(self.progress),
                "task": self.task.state() if isinstance(self.task, Curriculum) else {},
                "rng": torch.get_rng_state(),
            },
            partial,
        )
        os.replace(partial, self.settings.state_file)

    def _resume(self) -> None:
        path = self.settings.state_file
        if not path.exists():
            return
        state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        if (state["format"], state["seed"]) != (FORMAT, self.settings.seed):
            raise ValueError(f"{path} belongs to another seed or version; remove it or --work-dir")
        self.task.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        torch.set_rng_state(state["rng"].cpu())
        self.progress = Progress(**state["progress"])
        if isinstance(self.task, Curriculum):
            self.task.restore(state["task"])
        self.report(f"resumed at step {self.progress.step} from {path}")

    def _step(self, share: float) -> None:
        began = clock(self.device)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * rate_factor(share, self.settings)
        batches = self.task.batches(self.progress.step, share)
        loss = 0.0
        for batch in batches:
            loss += self._backward(move(batch, self.device), len(batches))
            self.progress.tokens += count_tokens(batch)
        nn.utils.clip_grad_norm_(self.task.model.parameters(), self.settings.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.progress.step += 1
        self.progress.losses.append(loss)
        self.progress.seconds += clock(self.device) - began

    def _backward(self, batch: Batch, parts: int) -> float:
        narrow = torch.autocast(self.device.type, torch.bfloat16)
        with narrow if self.settings.bf16 else contextlib.nullcontext():
            loss = self.task.loss(batch) / parts
        loss.backward()
        return loss.item()

    def _line(self) -> str:
        progress = self.progress
        share = progress.share(self.settings)
        recent = progress.losses[-50:]
        status = f"  {self.task.status}" if isinstance(self.task, Curriculum) else ""
        left = progress.seconds * (1 - share) / max(share, 1e-9)
        return (
            f"{share:6.1%}  step {progress.step:6d}  loss {sum(recent) / len(recent):.4f}  "
            f"{progress.tokens / 1e6:7.2f} M tokens  {progress.tokens / progress.seconds:6.0f} /s  "
            f"ETA {left / 60:5.1f} min{status}"
        )


def clock(device: torch.device) -> float:
    """Return seconds from some start: of processor time per thread on a CPU, else of wall time.

    Other programs slow the wall clock's minutes down, not these.
    """
    if device.type == "cpu":
        return time.process_time() / torch.get_num_threads()
    return time.monotonic()


def move(batch: Batch, device: torch.device) -> Batch:
    """Return a micro-batch on a device."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    return {name: part.to(device) for name, part in batch.items()}


def count_tokens(batch: Batch) -> int:
    """Return the tokens of a micro-batch; one without text has none."""
    if isinstance(batch, Tensor):
        return batch.numel()
    return batch["input_ids"].numel() if "input_ids" in batch else 0


def rate_factor(share: float, settings: Settings) -> float:
    """Return the learning rate as a share of its peak: a trapezoid over the budget."""
    rise = share / settings.warmup if settings.warmup else 1.0
    fall = (1.0 - share) / (1.0 - settings.anneal_from)
    return max(0.0, min(1.0, rise, fall))


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
