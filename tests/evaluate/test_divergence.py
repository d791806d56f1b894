"""Divergences against closed forms and against a direct computation in float64."""

from __future__ import annotations

import math

import pytest
import torch

import effc.evaluate.divergence as divergence
from effc.evaluate.divergence import row_divergence, summarize
from effc.evaluate.estimates import Estimate, exponential, quantile, ratio_of_sums


def laws(rows: list[list[float]]) -> torch.Tensor:
    """Logits [T, V] of known probabilities, each row moved by another constant."""
    shift = torch.arange(len(rows))[:, None]
    return torch.tensor(rows, dtype=torch.float64).log() + shift


def test_divergence_of_two_known_laws() -> None:
    """KL((1/2, 1/2) || (1/4, 3/4)) = log(2 / sqrt 3); the other row is log(4)."""
    p = laws([[0.5, 0.5], [1.0, 0.0]])
    q = laws([[0.25, 0.75], [0.25, 0.75]])
    found = row_divergence(p, q, [0, 1])
    first, second = math.log(2 / math.sqrt(3)), math.log(4)
    assert found.kl == pytest.approx(first + second, rel=1e-14)
    assert found.largest_kl == pytest.approx(second, rel=1e-14)
    assert (found.tokens, found.predicted) == (2, 1)
    assert found.loss_original == pytest.approx(math.log(2), rel=1e-14)
    assert found.loss_rewritten == pytest.approx(math.log(4 / 3), rel=1e-14)


def test_divergence_is_not_symmetric() -> None:
    p, q = laws([[0.5, 0.5]] * 2), laws([[0.25, 0.75]] * 2)
    there, back = row_divergence(p, q, [0, 0]), row_divergence(q, p, [0, 0])
    assert back.kl == pytest.approx(2 * (0.25 * math.log(0.5) + 0.75 * math.log(1.5)), rel=1e-14)
    assert there.kl != pytest.approx(back.kl, rel=0.01)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float16, torch.bfloat16))
def test_equal_logits_have_no_divergence_at_all(dtype: torch.dtype) -> None:
    """Not even one of rounding, with impossible tokens among them."""
    logits = (torch.randn(9, 50) * 4).to(dtype)
    logits[3, 7] = -torch.inf
    found = row_divergence(logits, logits.clone(), list(range(9)))
    assert found.kl == found.largest_kl == 0.0
    assert found.agreed == 9
    assert found.loss_original == found.loss_rewritten


@pytest.mark.parametrize("elements", (1, 60, 61, 10_000))
def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch, elements: int) -> None:
    monkeypatch.setattr(divergence, "CHUNK_ELEMENTS", elements)
    p, q = torch.randn(13, 30), torch.randn(13, 30)
    tokens = torch.randint(30, (13,)).tolist()
    found = row_divergence(p, q, tokens)
    a, b = p.double().log_softmax(-1), q.double().log_softmax(-1)
    direct = (a.exp() * (a - b)).sum(-1)
    assert found.kl == pytest.approx(float(direct.sum()), rel=1e-12)
    assert found.largest_kl == pytest.approx(float(direct.max()), rel=1e-12)
    assert found.agreed == int((p.argmax(-1) == q.argmax(-1)).sum())
    losses = [-sum(float(law[t, tokens[t + 1]]) for t in range(12)) for law in (a, b)]
    assert [found.loss_original, found.loss_rewritten] == pytest.approx(losses, rel=1e-12)


def test_what_the_rewritten_model_finds_impossible_is_infinitely_far() -> None:
    found = row_divergence(laws([[0.5, 0.5]] * 2), laws([[1.0, 0.0]] * 2), [0, 1])
    assert found.kl == found.loss_rewritten == math.inf
    summary = summarize([found, found])
    assert summary["kl"] == {"mean": None, "stderr": None, "max": None}
    assert summary["perplexity"]["ratio"] is None


def test_logits_that_are_no_numbers_agree_with_nothing() -> None:
    p = torch.zeros(3, 4)
    found = row_divergence(p, torch.full_like(p, torch.nan), [0, 1, 2])
    assert found.agreed == 0
    assert summarize([found])["kl"]["mean"] is None


def test_summary_weighs_tokens_equally() -> None:
    """A long and a short row against all tokens thrown together."""
    p, q = torch.randn(12, 9, dtype=torch.float64), torch.randn(12, 9, dtype=torch.float64)
    tokens = torch.randint(9, (12,)).tolist()
    parts = (slice(0, 9), slice(9, 12))
    summary = summarize([row_divergence(p[s], q[s], tokens[s]) for s in parts])
    a, b = p.log_softmax(-1), q.log_softmax(-1)
    kl = (a.exp() * (a - b)).sum(-1).mean()
    assert summary["kl"]["mean"] == pytest.approx(float(kl), rel=1e-12)
    known = [t for t in range(12) if t not in (8, 11)]
    loss = [-torch.stack([law[t, tokens[t + 1]] for t in known]).mean() for law in (a, b)]
    perplexity = summary["perplexity"]
    assert perplexity["original"] == pytest.approx(float(loss[0].exp()), rel=1e-12)
    assert perplexity["ratio"] == pytest.approx(float((loss[1] - loss[0]).exp()), rel=1e-12)
    agreed = (p.argmax(-1) == q.argmax(-1)).double().mean()
    assert summary["top1"]["mean"] == pytest.approx(float(agreed), rel=1e-12)


def test_standard_error_of_rows_of_one_token_is_the_usual_one() -> None:
    values = [0.3, 1.7, -0.4, 2.2, 0.9]
    tensor = torch.tensor(values, dtype=torch.float64)
    found = ratio_of_sums(values, [1] * 5)
    assert found.mean == pytest.approx(float(tensor.mean()), rel=1e-14)
    assert found.stderr == pytest.approx(float(tensor.std()) / math.sqrt(5), rel=1e-12)


def test_standard_error_covers_the_spread_of_clustered_means() -> None:
    """Over many draws, the mean squared standard error is the variance of the mean."""
    generator = torch.Generator().manual_seed(1)
    counts = [10, 20, 30, 40] * 5
    means, squares = [], []
    for _ in range(2000):
        common = torch.randn(20, generator=generator, dtype=torch.float64)
        sums = [n * float(c) for n, c in zip(counts, common, strict=True)]
        found = ratio_of_sums(sums, counts)
        means.append(found.mean)
        squares.append((found.stderr or 0.0) ** 2)
    variance = float(torch.tensor(means, dtype=torch.float64).var())
    # The estimator is known to be a little small for few rows of unequal length.
    assert sum(squares) / 2000 == pytest.approx(variance, rel=0.12)
    naive = sum(n * n for n in counts) / sum(counts) ** 2
    assert variance == pytest.approx(naive, rel=0.1)


def test_one_row_has_no_standard_error() -> None:
    assert ratio_of_sums([3.0], [4]) == Estimate(0.75, None)


def test_exponential_by_the_delta_method() -> None:
    found = exponential(Estimate(0.5, 0.1))
    assert found.mean == pytest.approx(math.exp(0.5))
    assert found.stderr == pytest.approx(0.1 * math.exp(0.5))
    assert exponential(Estimate(1e9, 1.0)) == Estimate(math.inf, None)


def test_quantiles_interpolate() -> None:
    values = [4.0, 1.0, 3.0, 2.0, 5.0]
    expected = torch.tensor(values, dtype=torch.float64)
    for share in (0.0, 0.1, 0.5, 0.9, 1.0):
        assert quantile(values, share) == pytest.approx(float(expected.quantile(share)))
