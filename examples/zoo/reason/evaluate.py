"""Evaluate family `reason` beside an untrained copy, a shortcut and chance."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from effc.evaluate.scoring import Shortcut, TaskResult, run_task
from effc.evaluate.tasks.base import EVALUATION_SEED
from effc.evaluate.tasks.registry import task_named
from examples.zoo.reason import card
from examples.zoo.reason.model import build
from examples.zoo.scores import answers_of, markdown

TASKS = ("reason.arithmetic", "reason.stack")
# A multiple of four: problems of four sizes take turns.
ITEMS = 200


def evaluate(checkpoint: Path, limit: int | None = None, write_card: bool = False) -> None:
    """Print the scores of a checkpoint and of its baselines.

    Args:
        checkpoint: A folder as `train` writes it.
        limit: Use this many items per task only.
        write_card: Also write the figures into the folder's README.md.
    """
    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    training = json.loads((checkpoint / "training.json").read_text())
    untrained = build(model.config, training["seed"])
    known = {"trained": answers_of(checkpoint), "untrained": answers_of(checkpoint, untrained)}
    table, written = {}, []
    for name in TASKS:
        task = task_named(name)
        columns = {**known, "shortcut": Shortcut(task)}
        results = {
            column: run_task(task, who, limit or ITEMS, EVALUATION_SEED)
            for column, who in columns.items()
        }
        scores = {column: result.score for column, result in results.items()}
        table[name] = {**scores, "chance": task.chance}
        written.append(results["trained"])
    scores, lengths = markdown(table, limit or ITEMS), length_table(written)
    print(f"{scores}\n{lengths}")
    if write_card:
        text = card.render(model, training, scores, lengths, written)
        (checkpoint / "README.md").write_text(text)


def length_table(results: list[TaskResult]) -> str:
    """Show by size of the problem how often the model is right, and how much it writes.

    Returns:
        A Markdown table: words of an answer on the mean, the share of them that checks are, and
        the words that progress alone would have taken.
    """
    lines = [
        "| task | size | correct | words written | of them checks | words needed |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for result in results:
        (facet,) = result.facets.values()
        for size, score in facet.items():
            pairs = [
                (answer, item.answer)
                for item, answer in zip(result.items, result.answers, strict=True)
                if size in item.facets.values()
            ]
            words = sum(len(answer.split()) for answer, _ in pairs) / len(pairs)
            checks = words - sum(progress_words(answer) for answer, _ in pairs) / len(pairs)
            needed = sum(progress_words(answer) for _, answer in pairs) / len(pairs)
            lines.append(
                f"| {result.task.name} | {size} | {score.mean:.3f} | {words:.0f} | "
                f"{checks / words:.0%} | {needed:.0f} |"
            )
    return "\n".join(lines) + "\n"


def progress_words(trace: str) -> int:
    """Count the words of steps that are neither checks nor rejected by the check after them."""
    steps = [step.split() for step in trace.split(" ; ")]
    total = len(steps) - 1
    for step, after in zip(steps, [*steps[1:], []], strict=True):
        review = step[:1] in (["check"], ["verify"])
        rejected = after[:1] == ["check"] and after[-1] == "wrong"
        total += -1 if review or rejected else len(step)
    return total
