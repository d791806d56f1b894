"""How likely a model finds given continuations, as multiple-choice benchmarks ask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from effc.diagnostics import GenerationError
from effc.evaluate.answering import LanguageModel
from effc.evaluate.reading import batches

Pair = tuple[Sequence[int], Sequence[int]]
"""Tokens of a context, at least one, and of its continuation, at least one."""


def log_likelihoods(model: LanguageModel, pairs: Sequence[Pair]) -> list[tuple[float, bool]]:
    """For each pair log p(continuation | context), and whether greedy decoding would say it.

    Contexts lose their first tokens where both do not fit the model's context.

    Args:
        model: tells its laws.
        pairs: contexts and continuations.

    Raises:
        GenerationError: E0701, a continuation alone is longer than the model's context.
    """
    limit = model.info.context
    longest = max((len(said) for _, said in pairs), default=0)
    if limit is not None and longest > limit:
        raise GenerationError(
            "E0701",
            f"a continuation has {longest} tokens and the context of the model {limit}",
            where=model.info.source,
            help="score a task with shorter answers, or a model with a longer context",
        )
    rows = [tuple((*context, *said)[:-1]) for context, said in pairs]
    rows = [row if limit is None else row[-limit:] for row in rows]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found: list[tuple[float, bool]] = [(0.0, True)] * len(rows)
    done = 0
    for batch in batches([rows[i] for i in order], model.info.vocabulary or 1 << 16):
        places = order[done : done + len(batch)]
        for i, logits in zip(places, model.logits(batch), strict=True):
            found[i] = _score(logits, pairs[i][1])
        done += len(batch)
    return found


def _score(logits: Tensor, said: Sequence[int]) -> tuple[float, bool]:
    """The score of the tokens that follow the last `len(said)` rows of logits [T, V]."""
    law = logits[-len(said) :].double().log_softmax(-1)
    target = torch.tensor(list(said), device=law.device)
    likelihood = float(law.gather(1, target[:, None]).sum())
    return likelihood, bool((law.argmax(-1) == target).all())
