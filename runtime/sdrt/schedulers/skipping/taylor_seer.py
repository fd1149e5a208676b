"""TaylorSeer Lite: between calls in a fixed interval, outputs follow a line (Liu et al. 2025, arXiv:2503.06923)."""

from __future__ import annotations

from dataclasses import dataclass

from sdrt.schedulers.skipping.base import Past, Weights, line

__all__ = ["TaylorSeer"]


@dataclass(frozen=True, kw_only=True)
class TaylorSeer:
    """After a warm-up, one call in a fixed interval of evaluations. Between calls, the outputs follow a straight line.

    As in `Spectrum`, the decision depends on the numbers of the evaluations alone.

    Attributes:
        warm_up: the number of calls before any is skipped.
        interval: one of so many evaluations is called.
        last: how many of the last evaluations are called.
    """

    warm_up: int
    interval: int
    last: int = 1

    def __call__(self, past: Past) -> Weights | None:
        """See `Rule`."""
        left = past.plan.num_evaluations - past.index
        if len(past.calls) < self.warm_up or left <= self.last or past.skipped + 1 >= self.interval:
            return None
        return line(past)
