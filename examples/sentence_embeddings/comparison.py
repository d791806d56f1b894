"""How far embeddings moved, and whether anyone would notice: cosines and nearest neighbours."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

DRAWS = 50


@dataclass(frozen=True)
class Comparison:
    """Embeddings [N, W] beside the original ones.

    Attributes:
        cosine_mean, cosine_min: between each sentence's two vectors.
        changed: share of the sentences whose nearest neighbour is another one.
        changed_error: its standard error, the sentences taken as a sample.
        noise: the share that changes when random noise turns each vector by the same angle.
        noise_error: the standard error of that, over the draws.
    """

    cosine_mean: float
    cosine_min: float
    changed: float
    changed_error: float
    noise: float
    noise_error: float


def nearest(vectors: torch.Tensor) -> torch.Tensor:
    """Index of each unit vector's nearest other vector, [N]."""
    similarity = vectors @ vectors.T
    return similarity.fill_diagonal_(-math.inf).argmax(-1)


def compare(original: torch.Tensor, vectors: torch.Tensor) -> Comparison:
    """Compare unit vectors [N, W] with the original ones.

    The noise baseline separates the size of the error from its direction: a method whose error
    is as harmless as its cosine suggests changes no more neighbours than random noise does.
    """
    cosine = (original * vectors).sum(-1).clamp(-1, 1)
    before = nearest(original)
    changed = _share(before, vectors)
    generator = torch.Generator().manual_seed(0)
    draws = [_share(before, _turned(original, cosine, generator)) for _ in range(DRAWS)]
    noise = torch.tensor(draws)
    return Comparison(
        float(cosine.mean()),
        float(cosine.min()),
        changed,
        math.sqrt(changed * (1 - changed) / len(vectors)),
        float(noise.mean()),
        float(noise.std()) / math.sqrt(DRAWS),
    )


def _share(before: torch.Tensor, vectors: torch.Tensor) -> float:
    return float((nearest(vectors) != before).double().mean())


def _turned(
    vectors: torch.Tensor, cosine: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Each unit vector turned in a random direction until the cosine is as given."""
    noise = torch.randn(vectors.shape, generator=generator)
    noise -= (noise * vectors).sum(-1, keepdim=True) * vectors
    noise = torch.nn.functional.normalize(noise, dim=-1)
    return cosine[:, None] * vectors + (1 - cosine.square()).clamp_min(0).sqrt()[:, None] * noise
