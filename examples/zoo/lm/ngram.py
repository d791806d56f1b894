"""An n-gram model with modified Kneser-Ney smoothing: the baseline a language model must beat.

Reference: Chen and Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling",
1998. All parameters come from the counts of the training text; nothing is tuned.

An n-gram is one integer, its tokens written as digits in base V, so that counting is sorting and
all continuations of a context lie side by side. Five tokens of a vocabulary of 4096 fill 60 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Order:
    """The smoothed counts of all n-grams of one length.

    Attributes:
        keys: The n-grams seen, sorted.  [N]
        mass: Each one's discounted count over its context's total: its own probability.  [N]
        contexts: Their first n-1 tokens, sorted, each once.  [C]
        starts: Where each context's n-grams begin in `keys`, and the end.  [C + 1]
        backoff: The probability that each context leaves to the next shorter one.  [C]
    """

    keys: Keys
    mass: Floats
    contexts: Keys
    starts: Keys
    backoff: Floats


class KneserNey:
    """Interpolated n-gram probabilities; they sum to one over the vocabulary.

    Args:
        documents: Token lists of the training text, without bos.
        order: The length n of the longest n-gram.
        vocabulary: The number of tokens V.
        bos: The token that stands before a document's first.
    """

    def __init__(
        self, documents: Sequence[Sequence[int]], order: int, vocabulary: int, bos: int
    ) -> None:
        if vocabulary**order > 2**63:
            raise ValueError(f"{order} tokens of {vocabulary} do not fit 63 bits: lower the order")
        self.order = order
        self.vocabulary = vocabulary
        self.bos = bos
        grams = np.concatenate([self._grams(document) for document in documents])
        keys, counts = np.unique(grams, return_counts=True)
        orders = [_smooth(keys, counts, vocabulary)]
        for length in range(order - 1, 0, -1):
            # A shorter n-gram counts the different tokens before it, not its occurrences.
            keys, counts = np.unique(keys % vocabulary**length, return_counts=True)
            orders.append(_smooth(keys, counts, vocabulary))
        self.orders = orders[::-1]

    def log_probabilities(self, document: Sequence[int]) -> Floats:
        """Return the natural logarithm of each token's probability given all before it."""
        grams = self._grams(document)
        probability = np.full(len(grams), 1 / self.vocabulary)
        for length, order in enumerate(self.orders, start=1):
            keys = grams % self.vocabulary**length
            context, known = _find(order.contexts, keys // self.vocabulary)
            gram, seen = _find(order.keys, keys)
            interpolated = order.mass[gram] * seen + order.backoff[context] * probability
            probability = np.where(known, interpolated, probability)
        return np.log(probability)

    def distribution(self, before: Sequence[int]) -> Floats:
        """Return the probability of every token after the tokens `before`.  [V]"""
        probability = np.full(self.vocabulary, 1 / self.vocabulary)
        padded = [self.bos] * (self.order - 1) + list(before)
        context = 0
        for length, order in enumerate(self.orders):
            if length:
                context += padded[-length] * self.vocabulary ** (length - 1)
            index = np.searchsorted(order.contexts, context)
            # Where no n-gram has this context, none has a longer one.
            if index == len(order.contexts) or order.contexts[index] != context:
                break
            span = slice(order.starts[index], order.starts[index + 1])
            probability *= order.backoff[index]
            probability[order.keys[span] % self.vocabulary] += order.mass[span]
        return probability

    def predictions(self, document: Sequence[int]) -> NDArray[np.int64]:
        """Return the most probable token at each place of a document."""
        reach = self.order - 1
        places = range(len(document))
        best = [self.distribution(document[max(0, i - reach) : i]).argmax() for i in places]
        return np.asarray(best, dtype=np.int64)

    def _grams(self, document: Sequence[int]) -> Keys:
        """Return, for each token, the n-gram that ends with it."""
        padded = np.asarray([self.bos] * (self.order - 1) + list(document), dtype=np.int64)
        grams = np.zeros(len(document), dtype=np.int64)
        for offset in range(self.order):
            grams = grams * self.vocabulary + padded[offset : offset + len(document)]
        return grams


def _smooth(keys: Keys, counts: NDArray[np.int64], vocabulary: int) -> Order:
    discounts = _discounts(counts)
    taken = discounts[np.minimum(counts, 3)]
    contexts, starts = np.unique(keys // vocabulary, return_index=True)
    totals = np.add.reduceat(counts, starts).astype(np.float64)
    sizes = np.diff(starts, append=len(keys))
    return Order(
        keys=keys,
        mass=(counts - taken) / np.repeat(totals, sizes),
        contexts=contexts,
        starts=np.append(starts, len(keys)),
        backoff=np.add.reduceat(taken, starts) / totals,
    )


def _discounts(counts: NDArray[np.int64]) -> Floats:
    """Return what to take from counts of 0, 1, 2 and of 3 or more, in closed form."""
    n1, n2, n3, n4 = (float((counts == count).sum()) for count in (1, 2, 3, 4))
    if 0 in (n1, n2, n3, n4):
        # Too little text for the closed form; half a count is the usual stand-in.
        return np.asarray([0.0, 0.5, 0.5, 0.5])
    share = n1 / (n1 + 2 * n2)
    raw = [0.0, 1 - 2 * share * n2 / n1, 2 - 3 * share * n3 / n2, 3 - 4 * share * n4 / n3]
    return np.clip(raw, 0.0, [0.0, 1.0, 2.0, 3.0])


def _find(table: Keys, keys: Keys) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return each key's place in the sorted table, and whether it is there at all."""
    index = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return index, table[index] == keys
