"""Two models on the same items: who is right where the other is wrong.

Items differ in difficulty, and both models meet the same ones: their difference varies far less
than either score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from effc.evaluate.estimates import quantile, ratio_of_sums

DRAWS = 10_000
LEVEL = 0.95
_SEED = 20


@dataclass(frozen=True)
class Paired:
    """The comparison of two models over n items.

    Attributes:
        n: items.
        only_first, only_second: items that one of them alone answers correctly.
        difference: accuracy of the first minus that of the second.
        stderr: of the difference, paired; None for a single item.
        interval: 95 % of the bootstrapped differences lie in it.
        p: two-sided, of the exact McNemar test.
    """

    n: int
    only_first: int
    only_second: int
    difference: float
    stderr: float | None
    interval: tuple[float, float]
    p: float


def compare(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """Compare the outcomes of two models.

    Args:
        first, second: whether each answered each item correctly, the items in the same order.
    """
    differences = [int(a) - int(b) for a, b in zip(first, second, strict=True)]
    wins, losses = differences.count(1), differences.count(-1)
    n = len(differences)
    estimate = ratio_of_sums(differences, [1] * n)
    return Paired(
        n=n,
        only_first=wins,
        only_second=losses,
        difference=estimate.mean,
        stderr=estimate.stderr,
        interval=bootstrap(wins, losses, n),
        p=mcnemar(wins, losses),
    )


def mcnemar(wins: int, losses: int) -> float:
    """The exact two-sided p value that both models are equally often the better one.

    Under the null hypothesis, `wins` of the discordant items are binomial with 1/2 (McNemar 1947;
    exact form: Fay, Biostatistics 2010).
    """
    n = wins + losses
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2**n)


def bootstrap(wins: int, losses: int, n: int) -> tuple[float, float]:
    """The percentile interval of the difference when items are drawn again with replacement.

    Differences are 1, -1 or 0, so n draws of items are one draw of a multinomial law.
    """
    generator = np.random.Generator(np.random.PCG64(_SEED))
    shares = [wins / n, losses / n, (n - wins - losses) / n]
    drawn = generator.multinomial(n, shares, size=DRAWS)
    means = ((drawn[:, 0] - drawn[:, 1]) / n).tolist()
    tail = (1 - LEVEL) / 2
    return quantile(means, tail), quantile(means, 1 - tail)
