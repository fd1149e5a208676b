"""The levels of A1111's schedule types and ComfyUI's, against their published rules computed here in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sdrt.errors import RequestError
from sdrt.schedulers import SAMPLERS, SPACING_LABELS, SPACINGS, DiscreteNoiseSchedule, resolve_scheduler

Levels = npt.NDArray[np.float64]
CONFIG: dict[str, Any] = {
    "_class_name": "PNDMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
}
STEPS = (1, 2, 5, 11, 20, 30, 33)
AYS = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
GITS = (14.615, 4.617, 2.507, 1.236, 0.702, 0.402, 0.240, 0.156, 0.104, 0.094, 0.029)
WHOLE = {"leading", "trailing", "linspace"}


def trained() -> Levels:
    """Stable Diffusion's levels, ascending."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alphas = np.cumprod(1 - betas)
    return np.asarray(np.sqrt((1 - alphas) / alphas))


def at(timesteps: Levels) -> Levels:
    """k-diffusion's `t_to_sigma`."""
    return np.exp(np.interp(timesteps, np.arange(1000), np.log(trained())))


def between(published: tuple[float, ...], n: int) -> Levels:
    """A1111's `loglinear_interp`, which reverses the levels on its way in and out."""
    places = np.linspace(0, 1, len(published))
    return np.exp(np.interp(np.linspace(0, 1, n), places, np.log(published[::-1])))[::-1]


def ended(levels: Any) -> Levels:
    return np.append(levels, 0.0)


def uniform(n: int) -> Levels:
    return ended(at(np.linspace(999, 0, n)))


def sgm_uniform(n: int) -> Levels:
    return ended(at(np.linspace(999, 0, n + 1)[:-1]))


def karras(n: int) -> Levels:
    low, high = trained()[0] ** (1 / 7), trained()[-1] ** (1 / 7)
    return ended((high + np.linspace(0, 1, n) * (low - high)) ** 7)


def exponential(n: int) -> Levels:
    return ended(np.exp(np.linspace(math.log(trained()[-1]), math.log(trained()[0]), n)))


def polyexponential(n: int, rho: float = 1.0) -> Levels:
    ramp = np.linspace(1, 0, n) ** rho
    low, high = math.log(trained()[0]), math.log(trained()[-1])
    return ended(np.exp(ramp * (high - low) + low))


def kl_optimal(n: int) -> Levels:
    share = np.arange(n + 1) / n
    return np.tan(share * np.arctan(trained()[0]) + (1 - share) * np.arctan(trained()[-1]))


def simple(n: int) -> Levels:
    return ended([trained()[-(1 + int(x * (1000 / n)))] for x in range(n)])


def ddim(n: int) -> Levels:
    levels, place = [], 1
    while place < 1000:
        levels.append(trained()[place])
        place += max(1000 // n, 1)
    return ended(levels[::-1])


def turbo(n: int) -> Levels:
    timesteps = (np.arange(1, n + 1) * (1000 / n) - 1)[::-1].round().clip(0, 999).astype(int)
    return ended(trained()[timesteps])


def linear_quadratic(n: int) -> Levels:
    if n == 1:
        return ended([trained()[-1]])
    few = n // 2
    rest, excess = n - few, few - 0.025 * n
    linear = [i * 0.025 / few for i in range(few)]
    bend, slope = excess / (few * rest**2), 0.025 / few - 2 * excess / rest**2
    curved = [bend * i**2 + slope * i + bend * few**2 for i in range(few, n)]
    return np.array([(1 - x) * trained()[-1] for x in [*linear, *curved, 1.0]])


def beta(n: int) -> Levels:
    stats = pytest.importorskip("scipy.stats")
    low, high = trained()[0], trained()[-1]
    return ended(low + stats.beta.ppf(1 - np.linspace(0, 1, n), 0.6, 0.6) * (high - low))


def beta_timesteps(n: int) -> Levels:
    stats = pytest.importorskip("scipy.stats")
    timesteps = np.rint(stats.beta.ppf(1 - np.linspace(0, 1, n, endpoint=False), 0.6, 0.6) * 999).astype(int)
    return ended(trained()[list(dict.fromkeys(timesteps.tolist()))])


RULES: dict[str, Any] = {
    "Uniform": uniform,
    "SGM Uniform": sgm_uniform,
    "Karras": karras,
    "Exponential": exponential,
    "Polyexponential": polyexponential,
    "KL Optimal": kl_optimal,
    "Align Your Steps": lambda n: ended(between(AYS, n)),
    "Align Your Steps 11": lambda n: ended(between(AYS, n)),
    "Align Your Steps GITS": lambda n: ended(between(GITS, n)),
    "Simple": simple,
    "Normal": uniform,
    "DDIM": ddim,
    "Turbo": turbo,
    "Beta": beta,
    "linear_quadratic": linear_quadratic,
    "beta_timesteps": beta_timesteps,
}


IN_ONE_STEP = ("SGM Uniform", "Polyexponential", "KL Optimal", "Simple", "Normal", "DDIM", "Turbo")


def test_every_label_has_a_rule_here() -> None:
    assert {*SPACING_LABELS.values()} <= {*RULES, "Align Your Steps 32"}


@pytest.mark.parametrize(
    # diffusers' linspace of one step, and A1111's interpolation, begin at the lowest level.
    ("name", "steps"),
    [(name, steps) for name in RULES for steps in STEPS if steps > 1 or name in IN_ONE_STEP],
)
@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M"])
def test_levels_equal_the_published_rule(sampler: str, name: str, steps: int) -> None:
    found = np.array(resolve_scheduler(f"{sampler} {name}", CONFIG).plan(steps).sigmas)
    # The levels are those of float32 betas. diffusers' spacings round timesteps in DPM-Solver's family, and
    # interpolate σ where k-diffusion interpolates its logarithm.
    tolerance = 1e-5
    if name == "SGM Uniform":
        tolerance = 0.02 if sampler == "DPM++ 2M" else 1e-4
    elif name == "Uniform" and sampler == "Euler":
        tolerance = 1e-4
    np.testing.assert_allclose(found, RULES[name](steps), rtol=tolerance * 5, atol=1e-9)


def test_the_levels_of_align_your_steps_32() -> None:
    found = resolve_scheduler("Euler Align Your Steps 32", CONFIG).plan(32).sigmas
    assert found[:3] == pytest.approx((14.615, 11.23951352, 8.64363081))
    assert found[-3:] == pytest.approx((0.03166121, 0.015, 0.0))
    assert len(found) == 33


@pytest.mark.parametrize("spacing", [name for name in SPACINGS if name not in WHOLE])
@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m", "dpmpp_2s_a"])
def test_every_count_of_steps_has_levels(sampler: str, spacing: str) -> None:
    scheduler = resolve_scheduler(sampler, CONFIG, spacing)
    for steps in (*range(1, 60), 200, 499, 999):
        plan = scheduler.plan(steps)
        assert plan.num_evaluations >= 1
        assert all(after <= before for before, after in zip(plan.sigmas, plan.sigmas[1:], strict=False))


@pytest.mark.parametrize(
    ("sampler", "spacing"),
    [
        ("DPM++ 2M", "karras"),
        ("DPM++ SDE", "karras"),
        ("DPM++ 2S a", "karras"),
        ("DPM2", "karras"),
        ("DPM2 a", "karras"),
        ("Restart", "karras"),
        ("DPM++ 2M SDE", "exponential"),
        ("DPM++ 2M SDE Heun", "exponential"),
        ("DPM++ 3M SDE", "exponential"),
        ("Euler", "linspace"),
        ("Euler a", "linspace"),
        ("LMS", "linspace"),
        ("Heun", "linspace"),
        ("DDIM", "leading"),
        ("PLMS", "leading"),
        ("DDIM CFG++", "leading"),
    ],
)
def test_automatic_is_the_default_of_the_sampler_in_a1111(sampler: str, spacing: str) -> None:
    assert resolve_scheduler(f"{sampler} Automatic", CONFIG).spacing == spacing
    assert resolve_scheduler(sampler, CONFIG, "automatic").spacing == spacing
    # Without the word, the model's own spacing stays.
    assert resolve_scheduler(sampler, CONFIG | {"timestep_spacing": "trailing"}).spacing == "trailing"


@pytest.mark.parametrize("sampler", ["LCM", "DPM fast", "DPM adaptive"])
def test_automatic_changes_nothing_where_a_sampler_has_its_own_levels(sampler: str) -> None:
    automatic, plain = (resolve_scheduler(name, CONFIG) for name in (f"{sampler} Automatic", sampler))
    assert automatic.settings == plain.settings
    with pytest.raises(RequestError, match="'karras' is not for scheduler"):
        resolve_scheduler(f"{sampler} Karras", CONFIG)


ON_LEVELS = [
    name
    for name, row in SAMPLERS.items()
    if "karras" in row.spacings and not (row.is_for_edm or row.is_for_flow)
]


@pytest.mark.parametrize("name", ON_LEVELS)
def test_uniform_visits_the_first_and_the_last_timestep(name: str) -> None:
    scheduler = resolve_scheduler(name, CONFIG, "Uniform")
    schedule = scheduler.noise_schedule
    assert isinstance(schedule, DiscreteNoiseSchedule)
    visited = scheduler.plan(12).sigmas
    assert visited[0] == pytest.approx(schedule.sigmas[-1])
    assert min(sigma for sigma in visited if sigma) == pytest.approx(schedule.sigmas[0])
