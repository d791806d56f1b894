"""Results as data for JSON and for the pages made of it; every figure with its error and its n."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from effc.evaluate.paired import compare
from effc.evaluate.scoring import Score, Shortcut, TaskResult

Entry = dict[str, Any]

WRONG_SHOWN = 5


def items_entry(result: TaskResult, against: TaskResult | None = None) -> Entry:
    """What was found on a task of items.

    Args:
        result: of the model.
        against: of another model on the same items.

    Returns:
        name, kind ("items"), mean, stderr, n, interval, chance, shortcut, facets, grid, wrong (the
        first of them), items_sha256, seconds and against: mean, stderr, n, interval, difference,
        only_here, only_there and p (`effc.evaluate.paired.Paired`), or null.
    """
    task = result.task
    known = Shortcut(task).answer(result.items)
    guessed = [task.correct(i, text) for i, text in zip(result.items, known, strict=True)]
    return {
        "name": task.name,
        "kind": "items",
        **score_entry(result.score),
        "interval": list(result.score.interval),
        "chance": task.chance,
        "shortcut": score_entry(Score.of(guessed)),
        "facets": {
            name: {value: score_entry(score) for value, score in values.items()}
            for name, values in result.facets.items()
        },
        "grid": _grid(result),
        "wrong": _wrong(result),
        "items_sha256": _digest(result),
        "seconds": result.seconds,
        "against": None if against is None else _paired(result, against),
    }


def perplexity_entry(
    label: Mapping[str, object], found: Entry, pair: Entry | None, seconds: float
) -> Entry:
    """What was found on a text.

    Args:
        label: of the text, see `EvaluationText.to_dict`.
        found: see `effc.evaluate.likelihood.perplexity`.
        pair: see `effc.evaluate.likelihood.divergence`, with the other model as the reference.
        seconds: that it took.
    """
    ratio = pair["perplexity"] if pair else None
    against = ratio and {
        "mean": ratio["original"],
        "ratio": ratio["ratio"],
        "ratio_stderr": ratio["ratio_stderr"],
    }
    entry = {"name": "perplexity", "kind": "text", "text": dict(label), **found}
    return entry | {"seconds": seconds, "against": against}


def kl_entry(label: Mapping[str, object], pair: Entry, seconds: float) -> Entry:
    """How far a model's laws lie from those of the reference; arguments as above."""
    sizes = {"n": pair["n"], "rows": pair["rows"]}
    entry = {"name": "kl", "kind": "text", "text": dict(label), **pair["kl"], **sizes}
    return entry | {"top1": pair["top1"], "seconds": seconds}


def score_entry(score: Score) -> Entry:
    """A score as data."""
    return {"mean": score.mean, "stderr": score.stderr, "n": score.n}


def _paired(result: TaskResult, against: TaskResult) -> Entry:
    pair = compare(result.correct, against.correct)
    return {
        **score_entry(against.score),
        "interval": list(against.score.interval),
        "difference": {
            "mean": pair.difference,
            "stderr": pair.stderr,
            "n": pair.n,
            "interval": list(pair.interval),
        },
        "only_here": pair.only_first,
        "only_there": pair.only_second,
        "p": pair.p,
        "same_answers": sum(a == b for a, b in zip(result.answers, against.answers, strict=True)),
    }


def _grid(result: TaskResult) -> Entry | None:
    if (grid := result.grid) is None:
        return None
    cells = [[None if cell is None else score_entry(cell) for cell in row] for row in grid.cells]
    return {"lengths": list(grid.lengths), "places": list(grid.places), "cells": cells}


def _wrong(result: TaskResult) -> list[Entry]:
    return [
        {"index": i, "expected": result.items[i].answer, "said": result.answers[i]}
        for i in result.wrong[:WRONG_SHOWN]
    ]


def _digest(result: TaskResult) -> str:
    digest = hashlib.sha256()
    for item in result.items:
        digest.update(item.canonical_bytes())
    return digest.hexdigest()
