"""Means with standard errors over rows of text.

Tokens of one row depend on one another, rows do not: standard errors are clustered by row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error, the latter None where a single row tells nothing of it."""

    mean: float
    stderr: float | None


def ratio_of_sums(sums: Sequence[float], counts: Sequence[int]) -> Estimate:
    """The mean per token, sum over rows of s_r / sum of n_r.

    The variance is that of the linearized ratio estimator over R rows (Cochran, "Sampling
    Techniques", section 6.3): R / (R - 1) * sum (s_r - m n_r)^2 / (sum n_r)^2.

    Args:
        sums: s_r, the sum of a quantity over the tokens of each row.
        counts: n_r, the number of those tokens, not all of them zero.
    """
    total, rows = sum(counts), len(counts)
    mean = math.fsum(sums) / total if _finite(sums) else _not_finite(sums)
    if rows < 2 or not math.isfinite(mean):
        return Estimate(mean, None)
    spread = math.fsum((s - mean * n) ** 2 for s, n in zip(sums, counts, strict=True))
    return Estimate(mean, math.sqrt(rows / (rows - 1) * spread) / total)


def exponential(estimate: Estimate) -> Estimate:
    """The estimate of exp(x) from that of x; the error by the delta method."""
    try:
        mean = math.exp(estimate.mean)
    except OverflowError:
        return Estimate(math.inf, None)
    return Estimate(mean, None if estimate.stderr is None else mean * estimate.stderr)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie, interpolated linearly."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def json_number(value: float | None) -> float | None:
    """A number as JSON can say it: what is no finite number becomes null."""
    return None if value is None or not math.isfinite(value) else float(value)


def _finite(values: Sequence[float]) -> bool:
    return all(map(math.isfinite, values))


def _not_finite(values: Sequence[float]) -> float:
    """Infinity where nothing worse is among the values, else nan; `math.fsum` would raise."""
    return math.nan if any(map(math.isnan, values)) or -math.inf in values else math.inf
