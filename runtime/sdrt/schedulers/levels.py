"""Spacings that place noise levels, as functions of the lowest and highest level and their number.

Sources: Karras et al. 2022 ("karras", arXiv:2206.00364), Lu et al. 2022 ("lu", arXiv:2206.00927), Lee et al. 2024
("beta_timesteps", arXiv:2407.12173; "beta" as diffusers and A1111 have it), Sabour et al. 2024 (Align Your Steps,
arXiv:2404.14507), Chen et al. 2024 (GITS, arXiv:2405.11326), k-diffusion's `get_sigmas_…`, A1111's `sd_schedulers.py`
with Forge's additions, and ComfyUI's `linear_quadratic`, from Mochi.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from sdrt.schedulers.discrete_schedule import DiscreteNoiseSchedule
from sdrt.schedulers.noise_schedule import NoiseSchedule

__all__ = ["LEVELS", "final_level", "levels_between", "placed_timesteps"]

FloatArray = npt.NDArray[np.float64]
Rule = Callable[[float, float, int], FloatArray]
TrainedRule = Callable[[FloatArray, int], FloatArray]
_RHO = 7.0


def levels_between(name: str, low: float, high: float, n: int, schedule: NoiseSchedule) -> FloatArray:
    """The levels of the spacing `name` from LEVELS, descending, without the final one.

    There are `n`, except where the rule has more. Rules of trained levels ignore `low` and `high`.
    """
    if name in _BETWEEN:
        return _BETWEEN[name](low, high, n)
    assert isinstance(schedule, DiscreteNoiseSchedule)  # the rows of other schedules do not list these
    return _TRAINED[name](schedule.sigmas, n)


def final_level(name: str | None, lowest: float, usual: float) -> float:
    """The level where a run ends: `usual`, except that KL Optimal ends at the `lowest` trained one."""
    return lowest if name == "kl_optimal" else usual


def placed_timesteps(name: str, beta_schedule: str, timesteps: FloatArray) -> FloatArray:
    """The timesteps that DPM-Solver's family gives to the U-Net: whole ones where diffusers has the spacing."""
    if name in ("karras", "lu") and beta_schedule != "squaredcos_cap_v2":
        return np.asarray(timesteps.round())
    return np.trunc(timesteps) if name in ("karras", "lu", "exponential", "beta", "ays") else timesteps


def _karras(low: float, high: float, n: int) -> FloatArray:
    """σ from high to low, evenly spaced in σ^(1/ρ) (Karras et al. 2022, arXiv:2206.00364, equation 5)."""
    top, bottom = high ** (1 / _RHO), low ** (1 / _RHO)
    return np.asarray((top + np.linspace(0, 1, n) * (bottom - top)) ** _RHO, dtype=np.float64)


def _exponential(low: float, high: float, n: int) -> FloatArray:
    """σ from high to low, evenly spaced in log σ."""
    return np.exp(np.linspace(math.log(high), math.log(low), n))


def _beta(low: float, high: float, n: int) -> FloatArray:
    """σ from high to low at even quantiles of Beta(0.6, 0.6) (arXiv:2407.12173), as diffusers places them."""
    return low + _beta_quantiles(np.linspace(1, 0, n)) * (high - low)


_BETA_SHAPE = 0.6


def _beta_quantiles(shares: FloatArray) -> FloatArray:
    """Inverse of the cumulative Beta(0.6, 0.6), by Newton's method on its series below the median."""
    lower = np.minimum(shares, 1 - shares)
    powers = np.arange(64)
    # Of (1 - u)^(0.6 - 1) = Σ cₖ uᵏ.
    binomial = np.cumprod(np.concatenate([[1.0], (powers[1:] - _BETA_SHAPE) / powers[1:]]))
    coefficients = binomial / (powers + _BETA_SHAPE)

    def mass(w: FloatArray) -> FloatArray:
        """∫₀ᵘ v^(-0.4) (1 - v)^(-0.4) dv at u = w^(1/0.6), in which it is almost a line."""
        u = w ** (1 / _BETA_SHAPE)
        return np.asarray(w * np.polynomial.polynomial.polyval(u, coefficients))

    half = float(mass(np.array(0.5**_BETA_SHAPE)))
    w = 2 * half * lower * _BETA_SHAPE
    for _ in range(20):
        slope = (1 - w ** (1 / _BETA_SHAPE)) ** (_BETA_SHAPE - 1) / _BETA_SHAPE
        w = np.clip(w - (mass(w) - 2 * half * lower) / slope, 0.0, 0.5**_BETA_SHAPE)
    quantiles = w ** (1 / _BETA_SHAPE)
    return np.where(shares > 0.5, 1 - quantiles, quantiles)


# Published levels, from the highest to the lowest.
_ALIGNED = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
_GITS = (14.615, 4.617, 2.507, 1.236, 0.702, 0.402, 0.240, 0.156, 0.104, 0.094, 0.029)
_ALIGNED_32 = (
    *(14.615, 11.23951352, 8.64363081, 6.64729424, 5.57250862, 4.71648546, 3.99196065, 3.5195609),
    *(3.13490466, 2.79228788, 2.48773628, 2.21663865, 1.97508351, 1.7793172, 1.61475335, 1.46540953),
    *(1.314849, 1.16642497, 1.03475547, 0.91573744, 0.80748169, 0.71202361, 0.621739, 0.53065202),
    *(0.4529096, 0.37491455, 0.27461819, 0.2011529, 0.14105873, 0.06682881, 0.03166121, 0.015),
)


def _published(levels: Sequence[float], n: int) -> FloatArray:
    """Published levels, interpolated in log σ to `n`."""
    places = np.linspace(0, 1, len(levels))
    return np.exp(np.interp(np.linspace(0, 1, n), places, np.log(levels)))


def _align_your_steps(_low: float, _high: float, n: int) -> FloatArray:
    """NVIDIA's n + 1 levels for Stable Diffusion 1.5, without the last one, because a run ends elsewhere."""
    return np.asarray(_published(_ALIGNED, n + 1)[:-1])


def _kl_optimal(trained: FloatArray, n: int) -> FloatArray:
    """The first n of n + 1 levels, evenly spaced in arctan σ (Sabour et al. 2024, arXiv:2404.14507)."""
    angles = np.linspace(math.atan(trained[-1]), math.atan(trained[0]), n + 1)
    return np.asarray(np.tan(angles[:-1]))


def _at_timesteps(trained: FloatArray, timesteps: FloatArray) -> FloatArray:
    """Levels at timesteps, which may lie between trained ones, interpolated in log σ as in k-diffusion."""
    return np.exp(np.interp(timesteps, np.arange(len(trained)), np.log(trained)))


def _normal(trained: FloatArray, n: int) -> FloatArray:
    """At even timesteps, the last trained one and the first included: k-diffusion's `get_sigmas`, A1111's Uniform."""
    return _at_timesteps(trained, np.linspace(len(trained) - 1, 0, n))


def _simple(trained: FloatArray, n: int) -> FloatArray:
    """Every (T/n)th trained level, from the highest; the fractions are cut off."""
    return np.asarray(trained[-1 - np.floor(np.arange(n) * (len(trained) / n)).astype(int)])


def _ddim_uniform(trained: FloatArray, n: int) -> FloatArray:
    """Every (T // n)th trained level, from the second lowest. There are more than `n` if n does not divide T."""
    return trained[1 :: max(len(trained) // n, 1)][::-1]


def _turbo(trained: FloatArray, n: int) -> FloatArray:
    """At the whole timesteps T·k/n - 1, for models distilled on few steps."""
    timesteps = (np.arange(n, 0, -1) * (len(trained) / n) - 1).round().astype(int)
    return np.asarray(trained[np.clip(timesteps, 0, len(trained) - 1)])


def _beta_timesteps(trained: FloatArray, n: int) -> FloatArray:
    """At whole timesteps that are even quantiles of Beta(0.6, 0.6). Timesteps that would repeat are left out."""
    # The median may lie between two timesteps, so its rounding must not depend on the last digits.
    quantiles = _beta_quantiles(1 - np.arange(n) / n).round(12)
    timesteps = np.rint(quantiles * (len(trained) - 1)).astype(int)
    return np.asarray(trained[np.unique(timesteps)[::-1]])


def _lu(trained: FloatArray, n: int) -> FloatArray:
    """Evenly spaced in log σ (arXiv:2206.00927), from logarithms that diffusers has in float32."""
    low, high = (float(np.log(np.float32(sigma))) for sigma in (trained[0], trained[-1]))
    return np.asarray(np.exp(high + np.linspace(0, 1, n) * (low - high)))


def _linear_quadratic(trained: FloatArray, n: int) -> FloatArray:
    """σ falls by 2.5 % of the highest level in the first half of the steps, and along a parabola in the others."""
    if n == 1:
        return trained[-1:]
    few, places = n // 2, np.arange(n, dtype=np.float64)
    bend = (few - 0.025 * n) / (few * (n - few) ** 2)
    slope = 0.025 / few - 2 * bend * few
    fallen = np.where(places < few, places * 0.025 / few, bend * (places**2 + few**2) + slope * places)
    return np.asarray(trained[-1] * (1 - fallen))


_BETWEEN: Mapping[str, Rule] = {
    "karras": _karras,
    "exponential": _exponential,
    "beta": _beta,
    "ays": _align_your_steps,
}
_TRAINED: Mapping[str, TrainedRule] = {
    "lu": _lu,
    "normal": _normal,
    "simple": _simple,
    "ddim_uniform": _ddim_uniform,
    # With A1111's exponent of 1, this is its Exponential.
    "polyexponential": lambda trained, n: _exponential(float(trained[0]), float(trained[-1]), n),
    "kl_optimal": _kl_optimal,
    "align_your_steps": lambda _, n: _published(_ALIGNED, n),
    "align_your_steps_32": lambda _, n: _published(_ALIGNED_32, n),
    "align_your_steps_gits": lambda _, n: _published(_GITS, n),
    "turbo": _turbo,
    "beta_timesteps": _beta_timesteps,
    "linear_quadratic": _linear_quadratic,
}
LEVELS: Mapping[str, object] = MappingProxyType({**_BETWEEN, **_TRAINED})
"""The spacings that choose noise levels. The others choose timesteps."""
