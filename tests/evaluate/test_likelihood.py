"""Perplexity, divergence and continuations against sums over single tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from effc.diagnostics import GenerationError
from effc.evaluate.continuations import log_likelihoods
from effc.evaluate.likelihood import divergence, perplexity, row_loss
from effc.evaluate.texts import EvaluationText
from effc.ir.program import ModelInfo

V = 7
INFO = ModelInfo("toy", "toy", context=6, vocabulary=V, eos=(1,))
ROWS = ((0, 3, 4, 5), (0, 2, 2, 6), (0, 5, 1))


class Markov:
    """Its law after a token depends on this token alone."""

    info = INFO

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.randn(V, V, generator=generator, dtype=torch.float64)

    def continue_prompts(self, prompts: object, new_tokens: int) -> list[list[int]]:
        raise NotImplementedError

    def logits(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        assert len({len(row) for row in rows}) == 1
        return [self.table[list(row)] for row in rows]

    def law(self, token: int) -> list[float]:
        weights = [math.exp(x) for x in self.table[token].tolist()]
        return [weight / sum(weights) for weight in weights]


def test_perplexity_is_the_inverse_geometric_mean() -> None:
    model = Markov(1)
    chances = [model.law(a)[b] for row in ROWS for a, b in zip(row, row[1:], strict=False)]
    found = perplexity(model, EvaluationText(ROWS, "rows"))
    assert found["mean"] == pytest.approx(math.prod(chances) ** (-1 / len(chances)))
    assert (found["n"], found["rows"]) == (8, 3)
    # The delta method on Cochran's ratio estimator.
    losses = [
        -sum(math.log(model.law(a)[b]) for a, b in zip(row, row[1:], strict=False)) for row in ROWS
    ]
    mean = sum(losses) / 8
    gaps = [(loss - mean * (len(row) - 1)) ** 2 for loss, row in zip(losses, ROWS, strict=True)]
    assert found["stderr"] == pytest.approx(found["mean"] * math.sqrt(3 / 2 * sum(gaps)) / 8)


def test_divergence_is_summed_over_the_vocabulary() -> None:
    reference, model = Markov(1), Markov(2)
    tokens = [token for row in ROWS for token in row]
    expected = sum(
        p * math.log(p / q)
        for t in tokens
        for p, q in zip(reference.law(t), model.law(t), strict=True)
    )
    found = divergence(reference, model, EvaluationText(ROWS, "rows"))
    assert found["kl"]["mean"] == pytest.approx(expected / len(tokens))
    assert (found["n"], found["rows"]) == (11, 3)
    assert divergence(model, model, EvaluationText(ROWS, "rows"))["kl"]["mean"] == 0


def test_the_last_token_predicts_nothing() -> None:
    logits = torch.randn(4, V, dtype=torch.float64)
    before = row_loss(logits, (0, 1, 2, 3))
    logits[3] = 100
    assert row_loss(logits, (0, 1, 2, 3)) == before


def test_continuations_come_in_order_and_know_what_is_greedy() -> None:
    model = Markov(3)
    best = [max(range(V), key=model.law(token).__getitem__) for token in range(V)]
    pairs = [((0, 2), (3, 4)), ((0,), (best[0], best[best[0]])), ((0, 1, 2, 3), (5,)), ((4,), (2,))]
    found = log_likelihoods(model, pairs)
    for (context, said), (value, greedy) in zip(pairs, found, strict=True):
        steps = list(zip((context[-1], *said), said, strict=False))
        assert value == pytest.approx(sum(math.log(model.law(a)[b]) for a, b in steps))
        assert greedy == all(best[a] == b for a, b in steps)
    assert found[1][1] and not all(greedy for _, greedy in found)


def test_long_contexts_lose_their_beginning() -> None:
    model, read = Markov(3), []
    plain = model.logits
    model.logits = lambda rows: read.extend(rows) or plain(rows)  # type: ignore[method-assign]
    ((value, _),) = log_likelihoods(model, [((0, 1, 2, 3, 4, 5, 6), (2, 3))])
    assert read == [(2, 3, 4, 5, 6, 2)]
    assert value == pytest.approx(math.log(model.law(6)[2]) + math.log(model.law(2)[3]))


def test_continuations_longer_than_the_context_are_refused() -> None:
    with pytest.raises(GenerationError, match="E0701"):
        log_likelihoods(Markov(3), [((0,), (2,) * 7)])
