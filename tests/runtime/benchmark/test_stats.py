"""Figures of a benchmark: intervals that hold as often as they say, whatever the distribution."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from sdrt.benchmark.stats import (
    Interval,
    autocorrelation,
    median_interval,
    middle_half,
    percentile,
    ratio_interval,
)

Draw = Callable[[random.Random], float]


def two_speeds(source: random.Random) -> float:
    """A machine that is at times disturbed: the median, 10, lies in the faster of two humps."""
    return source.gauss(10, 0.5) if source.random() < 0.7 else source.gauss(20, 2)


# The median of two_speeds is where the faster hump has 0.5 / 0.7 of its mass below: 10 + 0.5 · Φ⁻¹(0.714).
DISTRIBUTIONS: dict[str, tuple[Draw, float]] = {
    "normal": (lambda source: source.gauss(3, 1), 3.0),
    "long tail": (lambda source: source.lognormvariate(0, 1), 1.0),
    "two speeds": (two_speeds, 10.28297),
    "uniform": (lambda source: source.random(), 0.5),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("count", [6, 15, 60])
def test_the_interval_of_a_median_holds_as_often_as_it_says(name: str, count: int) -> None:
    draw, median = DISTRIBUTIONS[name]
    source = random.Random(7)
    trials, held = 1000, 0
    for _ in range(trials):
        interval = median_interval([draw(source) for _ in range(count)])
        assert interval is not None
        held += interval.low <= median <= interval.high
    # The binomial distribution has steps: 6 values cover 96.9 %, 15 cover 96.5 %. Three standard errors are 2 %.
    assert held / trials >= 0.95 - 0.02


@pytest.mark.parametrize(
    ("count", "low", "high"), [(6, 1, 6), (8, 1, 8), (9, 2, 8), (10, 2, 9), (20, 6, 15), (100, 40, 61)]
)
def test_ranks_are_those_of_the_tables(count: int, low: int, high: int) -> None:
    values = [float(value) for value in range(count, 0, -1)]
    assert median_interval(values) == Interval(low=low, high=high)


def test_too_few_values_have_no_interval() -> None:
    assert median_interval([1.0] * 5) is None
    assert median_interval([]) is None
    assert ratio_interval([1.0] * 6, [1.0] * 20) is None
    assert ratio_interval([1.0] * 7, [1.0] * 7) == Interval(low=1.0, high=1.0)


def test_thousands_of_values_have_a_narrow_one() -> None:
    interval = median_interval([float(value) for value in range(100_000)])
    assert interval is not None
    assert interval.low < 49_999 < interval.high
    # 1.96 · √n / 2 to both sides.
    assert interval.width == pytest.approx(620, abs=3)


def test_the_interval_of_a_ratio_holds() -> None:
    source = random.Random(11)
    held = 0
    for _ in range(500):
        over = [2 * source.lognormvariate(0, 0.3) for _ in range(15)]
        under = [source.lognormvariate(0, 0.3) for _ in range(30)]
        interval = ratio_interval(over, under)
        assert interval is not None
        held += interval.low <= 2 <= interval.high
    assert held / 500 >= 0.95


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [(10, 0.9, 9), (9, 0.9, None), (100, 0.99, 99), (99, 0.99, None), (1000, 0.99, 990), (3, 0.5, 2)],
)
def test_a_percentile_is_a_value_that_was_measured(count: int, share: float, expected: int | None) -> None:
    assert percentile([float(value) for value in range(1, count + 1)], share) == expected


def resembling(values: int, share: float) -> Sequence[float]:
    source, value, found = random.Random(3), 0.0, []
    for _ in range(values):
        value = share * value + source.gauss(0, 1)
        found.append(value)
    return found


def test_steps_that_resemble_the_ones_before_are_seen() -> None:
    assert autocorrelation(resembling(300, 0.8)) > 0.6
    assert abs(autocorrelation(resembling(300, 0.0))) < 0.2
    assert autocorrelation([1.0] * 20) == 0


def test_one_late_step_does_not_hide_a_pattern() -> None:
    steps = [1.0, 2.0] * 20
    assert autocorrelation([*steps, 1e6, *steps]) < -0.9


def test_the_middle_half_leaves_out_what_is_far_off() -> None:
    values = [5.0, 100.0, 4.0, 6.0, 0.001, 5.5, 4.5, 5.2]
    assert {values[index] for index in middle_half(values)} == {4.5, 5.0, 5.2, 5.5}
    assert middle_half([1.0]) == [0]
