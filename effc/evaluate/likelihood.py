"""How likely models find a text: perplexity of one, divergence of two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from effc.evaluate.answering import LanguageModel
from effc.evaluate.divergence import RowDivergence, row_divergence, summarize
from effc.evaluate.estimates import exponential, json_number, ratio_of_sums
from effc.evaluate.reading import batches
from effc.evaluate.texts import EvaluationText
from effc.progress import SILENT, Progress


def perplexity(
    model: LanguageModel, text: EvaluationText, progress: Progress = SILENT
) -> dict[str, Any]:
    """exp of the mean -log p of the tokens that a model is asked to predict.

    Returns:
        mean, stderr, n (tokens predicted) and rows, which the standard error comes from.
    """
    losses: list[float] = []
    for rows in _counted(text, model, progress):
        losses += map(row_loss, model.logits(rows), rows)
    counts = [len(row) - 1 for row in text.rows]
    found = exponential(ratio_of_sums(losses, counts))
    return _as_dict(found.mean, found.stderr) | {"n": sum(counts), "rows": len(counts)}


def divergence(
    reference: LanguageModel,
    model: LanguageModel,
    text: EvaluationText,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """KL(reference || model) per token, and what comes with it.

    Returns:
        kl, perplexity and top1 as in `effc.evaluate.divergence.summarize`, n (tokens) and rows.
    """
    found: list[RowDivergence] = []
    for rows in _counted(text, reference, progress):
        p, q = reference.logits(rows), model.logits(rows)
        found += [row_divergence(a, b, row) for a, b, row in zip(p, q, rows, strict=True)]
    return summarize(found) | {"n": text.tokens, "rows": len(text.rows)}


def row_loss(logits: Tensor, row: Sequence[int]) -> float:
    """The sum of -log p over the tokens of a row after its first.

    Args:
        logits: [T, V] after each token.
        row: T tokens.
    """
    target = torch.tensor(list(row[1:]), device=logits.device)
    law = logits[:-1].double().log_softmax(-1)
    return -float(law.gather(1, target[:, None]).sum())


def _counted(
    text: EvaluationText, model: LanguageModel, progress: Progress
) -> Iterator[Sequence[tuple[int, ...]]]:
    """Batches of rows; whoever asks for the next one has done with the last."""
    done = 0
    for rows in batches(text.rows, model.info.vocabulary or 1 << 16):
        yield rows
        done += sum(map(len, rows))
        progress.advance("tokens read", done, text.tokens)


def _as_dict(mean: float, stderr: float | None) -> dict[str, float | None]:
    return {"mean": json_number(mean), "stderr": json_number(stderr)}
