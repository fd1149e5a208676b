"""Runs of samplers as sums: replayed, they give the samplers' own latents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from sdrt.errors import RequestError
from sdrt.schedulers import SAMPLERS, resolve_scheduler
from sdrt.schedulers.linear_steps import HISTORY, LinearStep, linear_steps

BETAS = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "clip_sample": False,
}
NOT_SUMS = ("ddim_cfgpp", "dpmpp_sde", "dpm_adaptive")
OF_OTHER_MODELS = ("edm_", "flow_")
NAMES = [name for name in SAMPLERS if not name.startswith(OF_OTHER_MODELS)]


def scheduler(name: str, **config: Any) -> Any:
    return resolve_scheduler(name, {"_class_name": "PNDMScheduler", **BETAS, **config})


def model(x: Any, timestep: float) -> Any:
    """Not linear, as a network."""
    return np.tanh(x * 0.7 + np.roll(x, 1, -1) * 0.2) * (0.5 + timestep / 2000)


def replay(steps: Sequence[LinearStep], latents: Any, model: Any, noise: Any) -> Iterator[Any]:
    """The latents after each step, as a program in another language computes them."""
    history: list[Any] = []
    for step in steps:
        output = model(latents * step.scale, step.timestep)
        history = [step.term_latents * latents + step.term_output * output, *history][:HISTORY]
        latents = step.keep * latents + sum(
            factor * term for factor, term in zip(step.terms, history, strict=False)
        )
        if step.noise is not None:
            latents = latents + step.noise * noise()
        yield latents


def both(made: Any, steps: int, eta: float = 0.0) -> tuple[list[Any], list[Any]]:
    """The latents after each step: the sampler's, and those of the sums."""
    plan = made.plan(steps)
    first = np.random.default_rng(0).standard_normal((1, 4, 8, 8)).astype(np.float32) * plan.init_scale

    def draws() -> Callable[[], Any]:
        random = np.random.default_rng(1)
        return lambda: random.standard_normal(first.shape).astype(np.float32)

    def denoise(x: Any, sigma: float) -> Any:
        c_skip, c_out, c_in = plan.noise_schedule.scalings(sigma)
        return (c_skip * x + c_out * model(c_in * x, plan.timestep(sigma))).astype(np.float32)

    own = [step.x.copy() for step in made.sample(denoise, first, plan, noise=draws(), eta=eta)]
    return own, list(replay(linear_steps(made, plan, eta=eta), first, model, draws()))


def check(own: list[Any], sums: list[Any]) -> None:
    assert len(own) == len(sums)
    for one, other in zip(own, sums, strict=True):
        # Samplers compute in float32, and long steps magnify its rounding.
        np.testing.assert_allclose(other, one, atol=1e-4 * max(1, np.abs(one).max()))


@pytest.mark.parametrize("steps", [1, 2, 7, 20])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOT_SUMS])
def test_the_sums_give_the_sampler_s_latents(name: str, steps: int) -> None:
    check(*both(scheduler(name), steps))


@pytest.mark.parametrize("name", ["euler", "dpmpp_2m", "ddim", "pndm", "unipc"])
def test_with_v_prediction(name: str) -> None:
    check(*both(scheduler(name, prediction_type="v_prediction"), 10))


@pytest.mark.parametrize("spacing", ["karras", "exponential", "trailing"])
def test_with_other_spacings(spacing: str) -> None:
    check(*both(scheduler("dpmpp_2m").with_spacing(spacing), 10))


def test_with_fresh_noise_of_ddim() -> None:
    own, sums = both(scheduler("ddim"), 10, eta=0.7)
    check(own, sums)
    plan = scheduler("ddim").plan(10)
    assert any(step.noise for step in linear_steps(scheduler("ddim"), plan, eta=0.7))
    assert not any(step.noise for step in linear_steps(scheduler("ddim"), plan))


def test_the_first_steps_use_only_what_is_there() -> None:
    made = scheduler("dpmpp_3m")
    steps = linear_steps(made, made.plan(10))
    assert all(len(step.terms) == HISTORY for step in steps)
    for number, step in enumerate(steps):
        assert not any(step.terms[number + 1 :])


@pytest.mark.parametrize("name", NOT_SUMS)
def test_what_is_no_sum_is_refused(name: str) -> None:
    made = scheduler(name)
    with pytest.raises(RequestError, match=f"scheduler '{name}' cannot be written as sums"):
        linear_steps(made, made.plan(5))


def test_limits_are_refused() -> None:
    made = resolve_scheduler(None, {"_class_name": "DDPMScheduler", **BETAS, "thresholding": True})
    with pytest.raises(RequestError, match="cannot be written as sums"):
        linear_steps(made, made.plan(5))
