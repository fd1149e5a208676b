"""What the server has done since it started, in numbers."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from sdrt.serve.job import Job

__all__ = ["Histogram", "JobCounts", "RequestCounts"]

_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Seconds."""
_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_OTHER = "other"


class Histogram:
    """Durations in seconds: how many there were of each length, and their sum."""

    def __init__(self) -> None:
        self._numbers = [0] * (len(_BOUNDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Count a time."""
        self._numbers[bisect_left(_BOUNDS, seconds)] += 1
        self.total += seconds

    @property
    def buckets(self) -> list[tuple[str, float]]:
        """Bounds, and how many durations were at most as long, as Prometheus has them."""
        return list(zip((*map(str, _BOUNDS), "+Inf"), accumulate(self._numbers), strict=True))


@dataclass
class JobCounts:
    """The jobs that are over, and those that were refused."""

    by_status: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    images: int = 0
    run: Histogram = field(default_factory=Histogram)
    wait: Histogram = field(default_factory=Histogram)

    def add(self, job: Job) -> None:
        """Count a job that is over."""
        self.by_status[job.status.value] += 1
        self.images += len(job.made.images) if job.made else 0
        if job.started is not None and job.finished is not None:
            self.run.add(job.finished - job.started)
            self.wait.add(job.started - job.created)


@dataclass
class RequestCounts:
    """The requests that were answered, by the template of their route, such as `/jobs/{job_id}`.

    Clients choose paths and methods, so neither may be a label as it is: what has no route is "other", and so is a
    method that no route has.
    """

    answers: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    seconds: defaultdict[str, Histogram] = field(default_factory=lambda: defaultdict(Histogram))

    def add(self, scope: Mapping[str, Any], status: int, seconds: float) -> None:
        """Count a request that was answered."""
        template = _template(scope)
        method = scope["method"] if scope["method"] in _METHODS else _OTHER
        self.answers[template, method, status] += 1
        self.seconds[template].add(seconds)


def _template(scope: Mapping[str, Any]) -> str:
    """The template of a request's route. A route may not know the prefix of its router, which has no variables."""
    own: str | None = getattr(scope.get("route"), "path", None)
    if own is None:
        return _OTHER
    parts: list[str] = scope["path"].split("/")
    return "/".join(parts[: len(parts) - own.count("/")]) + own
