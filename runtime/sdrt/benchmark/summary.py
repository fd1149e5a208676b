"""Turns the samples of a measurement into figures and warnings."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from sdrt.benchmark.machine import BUSY
from sdrt.benchmark.stats import autocorrelation, median_interval, middle_half, percentile
from sdrt.benchmark.timed_generation import PARTS

__all__ = ["steady_steps", "summarise", "warnings_of"]

_CORRELATED = 0.3
# A clock above this share of its maximum counts as unchanged.
_STEADY = 0.95

Measurement = Mapping[str, Any]


def steady_steps(measurement: Measurement) -> list[Mapping[str, float]]:
    """The steps of all measured generations without their first steps, unless they have no others."""
    generations = [one["steps"] for one in measurement["generations"]]
    return [step for steps in generations for step in steps[1:] or steps]


def summarise(measurement: Measurement, confidence: float) -> dict[str, Any]:
    """All figures, in seconds. A figure with too few samples is None."""
    steps, generations = steady_steps(measurement), measurement["generations"]
    walls = [step["wall"] for step in steps]
    first = measurement["first_generation"]
    return {
        "step": {
            **(_spread(walls, confidence) or {}),
            "p90": percentile(walls, 0.9),
            "p99": percentile(walls, 0.99),
            "autocorrelation": autocorrelation(walls),
        },
        "parts": _parts(steps, walls),
        "first_step": _spread([one["steps"][0]["wall"] for one in generations], confidence),
        "text_encoder": _spread([one["text_encoder"] for one in generations], confidence),
        "vae_decoder": _spread([one["vae_decoder"] for one in generations], confidence),
        "generation": _spread([one["total"] for one in generations], confidence),
        "first_generation": _spread([first["total"]], confidence),
        "first_step_of_all": _spread([first["steps"][0]["wall"]], confidence),
        "load": _spread([measurement["load"]], confidence),
        "first_picture": _spread(measurement["first_pictures"], confidence),
    }


def _spread(values: Sequence[float], confidence: float) -> dict[str, Any] | None:
    if not values:
        return None
    interval = median_interval(values, confidence)
    return {
        "count": len(values),
        "min": min(values),
        "p50": statistics.median(values),
        "interval": None if interval is None else [interval.low, interval.high],
        "max": max(values),
    }


def _parts(steps: Sequence[Mapping[str, float]], walls: Sequence[float]) -> dict[str, float]:
    """Means over the middle half of the steps. They are as typical as medians, and add up."""
    middle = middle_half(walls)
    return {part: statistics.fmean(steps[index][part] for index in middle) for part in PARTS}


def _slower_clocks(during: Sequence[Mapping[str, Any]]) -> list[str]:
    """A warning for each GPU whose clock fell during the run, as it does when the GPU gets hot."""
    found = []
    for number, states in enumerate(zip(*(one["gpus"] for one in during), strict=False)):
        clocks = [state["sm_mhz"] for state in states if "sm_mhz" in state]
        if clocks and min(clocks) < _STEADY * max(clocks):
            found.append(f"the clock of GPU {number} varied between {min(clocks)} and {max(clocks)} MHz")
    return found


def warnings_of(measurement: Measurement) -> list[str]:
    """Reasons why the figures may be wrong."""
    found = []
    others, steps = measurement["other_programs"], [step["wall"] for step in steady_steps(measurement)]
    if others is not None and others > BUSY:
        found.append(
            f"other programs used {others:.0%} of the processors: the figures come from a busy machine"
        )
    found += _slower_clocks(measurement.get("clocks", {}).get("during", ()))
    if rescues := measurement.get("rescues"):
        runs = ", ".join(f"{count} of {name}" for name, count in rescues.items())
        found.append(f"runs overflowed float16 and were repeated in float32, which takes longer: {runs}")
    likeness = autocorrelation(steps)
    if likeness > max(_CORRELATED, 2 / len(steps) ** 0.5):
        found.append(
            f"steps resemble those before them (rank correlation {likeness:.2f}), as when the clock or the load of a "
            "machine changes: the intervals are too narrow"
        )
    return found
