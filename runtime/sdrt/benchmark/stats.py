"""Statistics that assume no distribution of times: order statistics and the binomial distribution."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Interval", "autocorrelation", "median_interval", "middle_half", "percentile", "ratio_interval"]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """The interval that contains a figure."""

    low: float
    high: float

    @property
    def width(self) -> float:
        """The difference between both ends."""
        return self.high - self.low


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest of `values` that at least `share` of them do not exceed. It never lies between two values.

    None if it would be the largest value, because then there are too few values: 0.99 needs 100.
    """
    if share > 0.5 and len(values) * (1 - share) < 1 - 1e-9:
        return None
    rank = math.ceil(len(values) * share - 1e-9)
    return sorted(values)[max(rank, 1) - 1] if values else None


def median_interval(values: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """The interval between two of `values` that contains the true median with at least this confidence.

    It holds for any distribution: as many values lie below the median as a fair coin shows heads (David and Nagaraja,
    Order Statistics, 7.1). The values must be independent. None for too few values: 95 % needs 6.
    """
    count = len(values)
    rank = _rank(count, (1 - confidence) / 2)
    if rank == 0:
        return None
    ordered = sorted(values)
    return Interval(low=ordered[rank - 1], high=ordered[count - rank])


def _rank(count: int, tail: float) -> int:
    """The largest r with P(X < r) <= tail for X ~ Binomial(count, 1/2); 0 if there is none."""
    below, rank = 0.0, 0
    logarithm = -count * math.log(2)
    while rank <= count // 2:
        below += math.exp(logarithm)
        if below > tail:
            return rank
        logarithm += math.log((count - rank) / (rank + 1))
        rank += 1
    return 0


def ratio_interval(
    over: Sequence[float], under: Sequence[float], confidence: float = 0.95
) -> Interval | None:
    """The interval that contains the ratio of two medians, `over` to `under`, with at least this confidence.

    Each median's interval gets half of the error probability (Bonferroni). The result is wider than needed, and right
    for any distribution. None for too few values: 95 % needs 7 of each.
    """
    each = 1 - (1 - confidence) / 2
    first, second = median_interval(over, each), median_interval(under, each)
    if first is None or second is None or second.low <= 0:
        return None
    return Interval(low=first.low / second.high, high=first.high / second.low)


def autocorrelation(values: Sequence[float]) -> float:
    """How much each value resembles the one before it, -1 to 1. By ranks (Spearman), so that outliers count little."""
    if len(values) < 3:
        return 0.0
    ordered = sorted(values)
    # Equal values share the mean of their ranks.
    ranks = [(bisect_left(ordered, value) + bisect_right(ordered, value)) / 2 for value in values]
    return statistics.correlation(ranks[:-1], ranks[1:]) if _vary(ranks[:-1]) and _vary(ranks[1:]) else 0.0


def _vary(values: Sequence[float]) -> bool:
    return min(values) != max(values)


def middle_half(values: Sequence[float]) -> list[int]:
    """Indices of the values that are neither in the lowest nor in the highest quarter."""
    order = sorted(range(len(values)), key=values.__getitem__)
    cut = len(values) // 4
    return order[cut : len(values) - cut]
