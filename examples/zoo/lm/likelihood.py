"""How well a model foretells held-out text: perplexity, bits per byte, token accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaForCausalLM

from examples.zoo.lm.data import BOS_ID
from examples.zoo.lm.ngram import KneserNey

# Tokens of one document, without bos, to each one's log probability and whether the model's
# first choice was right.
Scorer = Callable[[Sequence[int]], tuple[NDArray[np.float64], NDArray[np.bool_]]]


@dataclass(frozen=True)
class Measure:
    """A figure with its standard error."""

    value: float
    error: float

    def text(self, digits: int = 2) -> str:
        return f"{self.value:.{digits}f} ± {self.error:.{digits}f}"


@dataclass(frozen=True)
class Likelihood:
    """Held-out scores of one model over the same tokens as all others."""

    perplexity: Measure
    bits_per_byte: Measure
    accuracy: Measure


def measure_likelihood(
    scorer: Scorer, documents: Sequence[Sequence[int]], sizes: Sequence[int]
) -> Likelihood:
    """Score the documents; `sizes` are their lengths in bytes."""
    scored = [scorer(document) for document in documents]
    nats = [-float(logs.sum()) for logs, _ in scored]
    lengths = [len(document) for document in documents]
    per_token = ratio(nats, lengths)
    perplexity = math.exp(per_token.value)
    return Likelihood(
        perplexity=Measure(perplexity, perplexity * per_token.error),
        bits_per_byte=ratio([nat / math.log(2) for nat in nats], sizes),
        accuracy=ratio([float(right.sum()) for _, right in scored], lengths),
    )


def ratio(amounts: Sequence[float], sizes: Sequence[int]) -> Measure:
    """Return total amount per total size; the error treats documents, not tokens, as drawn."""
    amount, size = np.asarray(amounts, float), np.asarray(sizes, float)
    value = amount.sum() / size.sum()
    spread = np.square(amount - value * size).sum() * len(size) / max(1, len(size) - 1)
    return Measure(float(value), float(np.sqrt(spread) / size.sum()))


def ngram_scorer(model: KneserNey) -> Scorer:
    """Score with an n-gram model."""
    return lambda document: (
        model.log_probabilities(document),
        model.predictions(document) == np.asarray(document),
    )


def model_scorer(model: LlamaForCausalLM) -> Scorer:
    """Score with a transformers model, each token with at least half a context before it."""

    @torch.inference_mode()
    def score(document: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        window = model.config.max_position_embeddings - 1
        logs, right = [], []
        for start in _window_starts(len(document), window):
            piece = torch.tensor([BOS_ID, *document[start : start + window]])
            logits = model(input_ids=piece[None], use_cache=False).logits[0, :-1].float()
            done = sum(map(len, logs)) - start
            chosen = logits.log_softmax(-1).gather(1, piece[1:, None])[done:, 0]
            logs.append(chosen.double().numpy())
            right.append((logits.argmax(-1) == piece[1:])[done:].numpy())
        return np.concatenate(logs), np.concatenate(right)

    return score


def _window_starts(length: int, window: int) -> range:
    """Return overlapping windows' starts; each but the first scores its second half only."""
    stride = window // 2
    return range(0, max(1, length - window + stride), stride)
