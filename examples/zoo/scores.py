"""The tables of the model cards: what a model scores on tasks, and what that is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from effc.evaluate.answering import Answerer, ModelAnswers
from effc.evaluate.scoring import ITEMS, Score, Shortcut, run_task
from effc.evaluate.tasks.base import EVALUATION_SEED, Task
from effc.evaluate.tasks.registry import task_named
from effc.frontend.huggingface.original import OriginalModel, facts
from effc.tokenizer import open_tokenizer

Table = dict[str, dict[str, Score | float]]
"""Task -> column -> score, or the accuracy of chance."""


def score_table(
    folder: Path,
    untrained: Any,
    tasks: Sequence[str | Task],
    limit: int = ITEMS,
    also: Mapping[str, Answerer] | None = None,
) -> str:
    """Score a checkpoint for its card.

    Args:
        folder: The checkpoint.
        untrained: A model of the same architecture with random weights.
        tasks: Tasks, or their names.
        limit: Items per task, of the evaluation seed.
        also: Further columns: their names and who answers, such as a model without images.

    Returns:
        A Markdown table with a row per task: trained, untrained, shortcut, chance, each with its
        standard error, between them the further columns.
    """
    return markdown(score_tasks(folder, untrained, tasks, limit, also), limit)


def score_tasks(
    folder: Path,
    untrained: Any,
    tasks: Sequence[str | Task],
    limit: int = ITEMS,
    also: Mapping[str, Answerer] | None = None,
) -> Table:
    """The numbers of `score_table`."""
    known = {"trained": answers_of(folder), "untrained": answers_of(folder, untrained)}
    table: Table = {}
    for each in tasks:
        task = task_named(each) if isinstance(each, str) else each
        columns: dict[str, Answerer] = {**known, **(also or {}), "shortcut": Shortcut(task)}
        table[task.name] = {
            column: run_task(task, who, limit, EVALUATION_SEED).score
            for column, who in columns.items()
        } | {"chance": task.chance}
    return table


def answers_of(folder: Path, model: Any = None) -> ModelAnswers:
    """What a model answers.

    Args:
        folder: A checkpoint.
        model: Answers in its place, with its tokenizer.
    """
    if model is None:
        original = OriginalModel.open(folder)
    else:
        original = OriginalModel(model.eval(), facts(model, folder))
    return ModelAnswers(original, open_tokenizer(original.info))


def markdown(table: Table, limit: int) -> str:
    """Format a table of scores."""
    columns = list(next(iter(table.values())))
    lines = [
        f"Exact match on {limit} items of seed {EVALUATION_SEED:,}, with standard errors.",
        "",
        f"| task | {' | '.join(columns)} |",
        f"| --- |{' ---: |' * len(columns)}",
    ]
    lines += [
        f"| {name} | {' | '.join(map(_cell, scores.values()))} |" for name, scores in table.items()
    ]
    return "\n".join(lines) + "\n"


def _cell(score: Score | float) -> str:
    if not isinstance(score, Score):
        return f"{score:.2g}"
    doubt = "" if score.stderr is None else f" ± {score.stderr:.3f}"
    return f"{score.mean:.3f}{doubt}"
