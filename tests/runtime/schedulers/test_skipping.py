"""Rules that leave out calls of the U-Net: what they decide, and what takes the place of a call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.polynomial import chebyshev

from sdrt.schedulers import Plan, Scheduler, resolve_scheduler
from sdrt.schedulers.skipping import (
    FEWEST_STEPS,
    Call,
    EstimateLine,
    Past,
    Rule,
    Skipping,
    Spectrum,
    rule_for,
    why_none,
)
from sdrt.schedulers.skipping.base import line

Array = np.ndarray[Any, np.dtype[np.float32]]
CONFIG = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SPECTRUM = Spectrum(warm_up=4, window=2, growth=0.5)


def scheduler(name: str = "euler", **config: Any) -> Scheduler:
    return resolve_scheduler(name, CONFIG | config)


def past(times: Sequence[float], time: float, index: int = 50, plan: Plan | None = None) -> Past:
    calls = [Call(index=n, time=one, output=np.zeros(1, np.float32)) for n, one in enumerate(times)]
    plan = plan or scheduler().plan(100)
    return Past(plan=plan, index=index, time=time, calls=calls)


def called(rule: Rule, name: str, steps: int) -> str:
    """Which evaluations of a run call the denoiser: 1 or 0 for each."""
    own = scheduler(name)
    plan, made = own.plan(steps), list[str]()

    def denoise(x: Array, sigma: float) -> Array:
        made[-1] = "1"
        return x / np.float32(1 + sigma**2)

    skipping = Skipping(denoise, rule, plan)

    def counting(x: Array, sigma: float) -> Array:
        made.append("0")
        return skipping(x, sigma)

    x = np.ones((1, 4, 2, 2), np.float32) * np.float32(plan.init_scale)
    list(own.sample(counting, x, plan, noise=lambda: np.ones_like(x)))
    assert skipping.skipped == made.count("0")
    return "".join(made)


def test_spectrum_s_window_grows() -> None:
    # Windows of 2, 2, 3, 3 and 4 evaluations; the last evaluation is called.
    assert called(Spectrum(warm_up=4, window=2, growth=0.5), "euler", 20) == "1111" + "01010010010001" + "01"
    assert called(Spectrum(warm_up=3, window=1, growth=1), "euler", 12) == "111" + "101001" + "001"


@pytest.mark.parametrize("ridge", [0.01, 0.1, 1.0])
def test_spectrum_is_a_ridge_regression_and_a_line(ridge: float) -> None:
    times, time = [0.0, 0.05, 0.1, 0.2, 0.3], 0.45
    outputs = np.random.default_rng(0).standard_normal((len(times), 6))
    rule = Spectrum(warm_up=4, window=4, growth=0, degree=3, ridge=ridge, share=0.3)
    found = rule(past(times, time, index=6))
    # The same by least squares, with the penalty as further equations.
    basis = chebyshev.chebvander(2 * np.array(times) - 1, 3)
    equations = np.concatenate([basis, np.sqrt(ridge) * np.eye(4)])
    fitted = np.linalg.lstsq(equations, np.concatenate([outputs, np.zeros((4, 6))]), rcond=None)[0]
    polynomial = chebyshev.chebval(2 * time - 1, fitted)
    straight = outputs[-1] + (time - 0.3) / (0.3 - 0.2) * (outputs[-1] - outputs[-2])
    assert found is not None
    np.testing.assert_allclose(found @ outputs, 0.3 * polynomial + 0.7 * straight, rtol=1e-9)


def test_two_calls_at_one_time_make_no_line() -> None:
    """Both evaluations of a step of Heun may be at one level. The line goes through the call before them."""
    found = line(past([0.0, 0.2, 0.2], 0.4, index=4))
    np.testing.assert_allclose(found, [-1, 0, 2])


@pytest.mark.parametrize(
    "name", ["euler", "ddim", "dpmpp_2m", "unipc", "lms", "deis", "heun", "dpm2", "pndm"]
)
@pytest.mark.parametrize(
    "rule",
    [
        Spectrum(warm_up=6, window=3, growth=0, share=0),
        Spectrum(warm_up=4, window=2, growth=0.5, ridge=1e-9, degree=1),
        EstimateLine(warm_up=6, window=3, growth=0, share=1),
    ],
    ids=repr,
)
def test_what_follows_a_line_is_as_without(name: str, rule: Rule) -> None:
    """If what the rule adds up is a line in time, the run is that of every call, with half of them."""
    own = scheduler(name)
    plan = own.plan(24)
    offset, rise = np.random.default_rng(1).standard_normal((2, 1, 4, 8, 8)).astype(np.float32)
    made = list[float]()

    def denoise(x: Array, sigma: float) -> Array:
        made.append(sigma)
        time = (plan.timesteps[0] - plan.timestep(sigma)) / (plan.timesteps[0] - plan.timesteps[-1])
        on_line = offset + np.float32(time) * rise
        return on_line if rule.adds_estimates else x - np.float32(sigma) * on_line

    def run(function: Callable[[Array, float], Array]) -> Array:
        made.clear()
        x = np.random.default_rng(2).standard_normal((1, 4, 8, 8)).astype(np.float32)
        return list(own.sample(function, x * np.float32(plan.init_scale), plan, noise=lambda: x))[-1].x

    expected = run(denoise)
    whole = len(made)
    found = run(Skipping(denoise, rule, plan))
    assert len(made) <= 0.65 * whole
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)


def test_guidance_may_come_before_or_after_the_sum() -> None:
    """The weights are numbers, so rows may be summed before they are guided, or after it."""
    plan = scheduler().plan(20)
    texts = np.random.default_rng(3).standard_normal((2, 1, 4, 8, 8)).astype(np.float32)

    def row(text: Array) -> Skipping:
        return Skipping(lambda x, sigma: x / np.float32(1 + sigma**2) + np.sin(text * x), SPECTRUM, plan)

    without, with_prompt = row(texts[0]), row(texts[1])

    def guided(one: Callable[[Array, float], Array], other: Callable[[Array, float], Array]) -> Any:
        return lambda x, sigma: one(x, sigma) + np.float32(7.5) * (other(x, sigma) - one(x, sigma))

    whole = Skipping(guided(row(texts[0])._denoise, row(texts[1])._denoise), SPECTRUM, plan)
    x = np.random.default_rng(4).standard_normal((1, 4, 8, 8)).astype(np.float32)
    for sigma in plan.sigmas[:-1]:
        rows = without(x, sigma), with_prompt(x, sigma)
        expected = rows[0] + np.float32(7.5) * (rows[1] - rows[0])
        np.testing.assert_allclose(whole(x, sigma), expected, rtol=1e-3, atol=1e-3)
        x = x * np.float32(0.9)
    assert whole.skipped == without.skipped >= 9


def test_a_sampler_with_noise_keeps_the_last_estimate() -> None:
    plan = scheduler("euler_a").plan(20)
    estimates = iter(np.random.default_rng(5).standard_normal((20, 1, 4, 2, 2)).astype(np.float32))
    rule = rule_for("balanced", plan, scheduler("euler_a").sampler, stochastic=True)
    assert rule is not None
    skipping = Skipping(lambda x, sigma: next(estimates), rule, plan)
    x = np.ones((1, 4, 2, 2), np.float32)
    made = [skipping(x, sigma) for sigma in plan.sigmas[:-1]]
    np.testing.assert_array_equal(made[2], made[1])
    assert np.abs(made[3] - made[2]).max() > 0.1
    # They are not the same array, which a sampler may write to.
    assert not np.shares_memory(made[2], made[1])


def test_a_part_of_the_line_through_two_estimates() -> None:
    rule = EstimateLine(warm_up=2, window=4, growth=0, share=0.25)
    found = rule(past([0.0, 0.2], 0.3, index=3))
    # The line goes on by half of its last difference, and a quarter of that counts.
    np.testing.assert_allclose(found, [-0.125, 1.125])
    # One call makes no line.
    np.testing.assert_allclose(EstimateLine(warm_up=1, window=4, growth=0)(past([0.0], 0.1, index=1)), [1])


@pytest.mark.parametrize(
    ("speed", "steps", "calls"),
    [
        ("balanced", 20, [0, 1, 2, 3, 4, 6, 8, 11, 14, 17, 19]),
        ("fast", 20, [0, 3, 7, 11, 15, 19]),
        ("balanced", 50, [0, 1, 2, 5, 8, 11, 14, 18, 22, 26, 30, 35, 40, 45, 49]),
        ("fast", 50, [0, 1, 4, 7, 11, 16, 22, 28, 35, 43, 49]),
    ],
)
def test_the_calls_that_the_documents_name(speed: str, steps: int, calls: list[int]) -> None:
    own = scheduler("dpmpp_2m")
    rule = rule_for(speed, own.plan(steps), own.sampler)
    assert rule is not None
    assert [n for n, one in enumerate(called(rule, "dpmpp_2m", steps)) if one == "1"] == calls


def test_after_a_change_the_calls_begin_anew() -> None:
    plan = scheduler().plan(20)
    seen = list[int]()
    skipping = Skipping(lambda x, sigma: x, SPECTRUM, plan)
    for index, sigma in enumerate(plan.sigmas[:-1]):
        if index == 8:
            skipping.forget()
        before = skipping.skipped
        skipping(np.ones((1, 4, 2, 2), np.float32), sigma)
        seen += [index] * (skipping.skipped == before)
    assert seen == [0, 1, 2, 3, 5, 7, *range(8, 12), 13, 15, 18, 19]


@pytest.mark.parametrize("speed", ["balanced", "fast"])
@pytest.mark.parametrize("name", ["lcm", "tcd", "dpm_adaptive", "dpm_fast", "restart"])
def test_schedulers_that_skip_nothing(speed: str, name: str) -> None:
    own = scheduler(name)
    plan = own.plan(50)
    assert rule_for(speed, plan, own.sampler) is None
    assert name in why_none(plan, own.sampler)


@pytest.mark.parametrize("steps", [1, 4, 8, FEWEST_STEPS - 1])
@pytest.mark.parametrize("name", ["euler", "dpmpp_2m", "heun"])
def test_short_runs_skip_nothing(steps: int, name: str) -> None:
    own = scheduler(name)
    plan = own.plan(steps)
    assert rule_for("fast", plan, own.sampler) is None
    assert why_none(plan, own.sampler) == f"{steps} steps run, and it needs {FEWEST_STEPS}"
    # A part of a longer run is as short.
    assert rule_for("fast", own.plan(20, skip=20 - steps), own.sampler) is None


def test_off_skips_nothing() -> None:
    own = scheduler()
    assert rule_for("off", own.plan(50), own.sampler) is None
