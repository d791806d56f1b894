"""How far the next-token laws of two models lie apart.

p is the law of the original, q that of the rewritten model, both over the vocabulary V after every
token of a row. KL(p || q) = sum_v p_v (log p_v - log q_v), in nats.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from effc.evaluate.estimates import Estimate, exponential, json_number, ratio_of_sums

CHUNK_ELEMENTS = 1 << 22
"""Elements of the float64 tables that are held at once, 32 MiB each."""


@dataclass(frozen=True)
class RowDivergence:
    """Sums over one row of T tokens.

    Attributes:
        tokens: T.
        kl: sum of the divergences after each token.
        largest_kl: the largest of them.
        agreed: tokens after which both models find the same token most likely.
        predicted: tokens that both were asked to predict, T - 1.
        loss_original, loss_rewritten: sums of -log p and -log q of those.
    """

    tokens: int
    kl: float
    largest_kl: float
    agreed: int
    predicted: int
    loss_original: float
    loss_rewritten: float


def row_divergence(original: Tensor, rewritten: Tensor, tokens: Sequence[int]) -> RowDivergence:
    """Compare the logits of one row, a few tokens at a time in float64.

    Args:
        original: [T, V] logits after each token; finite or -inf.
        rewritten: the same of the rewritten model; what is no number there gives a divergence
            that is no number.
        tokens: the T tokens of the row.
    """
    target = torch.tensor([*tokens[1:], 0], device=original.device)
    divergences, losses, agreed = [], [], 0
    for part in _chunks(*original.shape):
        p, q = (logits[part].double().log_softmax(-1) for logits in (original, rewritten))
        # Where p is 0 the term is 0, whatever q is.
        mass = p.exp()
        divergences.append(torch.where(mass > 0, mass * (p - q), 0.0).sum(-1))
        losses.append(-torch.stack([law.gather(1, target[part, None])[:, 0] for law in (p, q)]))
        same = p.argmax(-1) == q.argmax(-1)
        agreed += int((same & ~q.isnan().any(-1)).sum())
    kl = torch.cat(divergences).clamp(min=0)
    loss = torch.cat(losses, dim=1)[:, :-1].sum(1).tolist()
    return RowDivergence(
        len(tokens), float(kl.sum()), float(kl.max()), agreed, len(tokens) - 1, loss[0], loss[1]
    )


def summarize(rows: Sequence[RowDivergence]) -> dict[str, dict[str, float | None]]:
    """The entries "kl", "perplexity" and "top1" of a quality report."""
    tokens, predicted = [row.tokens for row in rows], [row.predicted for row in rows]
    kl = ratio_of_sums([row.kl for row in rows], tokens)
    top1 = ratio_of_sums([row.agreed for row in rows], tokens)
    original = ratio_of_sums([row.loss_original for row in rows], predicted)
    rewritten = ratio_of_sums([row.loss_rewritten for row in rows], predicted)
    # Paired: the difference per row varies far less than either loss.
    paired = [row.loss_rewritten - row.loss_original for row in rows]
    ratio = exponential(ratio_of_sums(paired, predicted))
    largest = max(row.largest_kl for row in rows) if kl.mean == kl.mean else kl.mean
    return {
        "kl": _as_dict(kl) | {"max": json_number(largest)},
        "perplexity": {
            "original": json_number(exponential(original).mean),
            "rewritten": json_number(exponential(rewritten).mean),
            "ratio": json_number(ratio.mean),
            "ratio_stderr": json_number(ratio.stderr),
        },
        "top1": _as_dict(top1),
    }


def _as_dict(estimate: Estimate) -> dict[str, float | None]:
    return {"mean": json_number(estimate.mean), "stderr": json_number(estimate.stderr)}


def _chunks(T: int, V: int) -> Iterator[slice]:
    step = max(1, CHUNK_ELEMENTS // V)
    return (slice(start, start + step) for start in range(0, T, step))
