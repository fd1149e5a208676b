"""The noise schedule of models trained on betas, as Stable Diffusion is: a table of noise levels by timestep.

The levels are rounded to float32, as in diffusers: an ᾱ close to 1 loses digits (1 - ᾱ₀ is off by 7e-5), and a
more exact scheduler would take other steps than diffusers does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from sdrt.errors import UnsupportedModelError
from sdrt.schedulers.noise_schedule import FloatArray, NoiseSchedule, Scalings
from sdrt.schedulers.settings import Settings

__all__ = ["BETA_SCHEDULES", "PREDICTION_TYPES", "DiscreteNoiseSchedule", "build_discrete_schedule"]

SingleArray = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class DiscreteNoiseSchedule(NoiseSchedule):
    """Trained noise levels, indexed by timestep; the variance explodes.

    `alphas_cumprod` is ᾱ and `sigmas` is √((1 - ᾱ)/ᾱ), ascending; both float64 [num_train_timesteps].
    """

    alphas_cumprod: FloatArray
    sigmas: FloatArray
    log_sigmas: SingleArray
    prediction_type: str

    @classmethod
    def from_betas(
        cls, betas: SingleArray, *, prediction_type: str, terminal_alpha_cumprod: float | None = None
    ) -> DiscreteNoiseSchedule:
        """Levels from β [T]. `terminal_alpha_cumprod` replaces a last ᾱ of zero, whose σ would be infinite."""
        alphas_cumprod = _cumulative(betas)
        if terminal_alpha_cumprod is not None:
            alphas_cumprod[-1] = terminal_alpha_cumprod
        sigmas = np.sqrt((1 - alphas_cumprod) / alphas_cumprod)
        return cls(
            alphas_cumprod=alphas_cumprod.astype(np.float64),
            sigmas=sigmas.astype(np.float64),
            log_sigmas=np.log(sigmas),
            prediction_type=prediction_type,
        )

    def __len__(self) -> int:
        return len(self.sigmas)

    def signal(self, sigma: float) -> float:
        """1: the variance explodes."""
        return 1.0

    def scalings(self, sigma: float) -> Scalings:
        """(c_skip, c_out, c_in), with denoised = c_skip·x + c_out·model(c_in·x, timestep)."""
        return PREDICTION_TYPES[self.prediction_type](sigma)

    def sigma_at(self, timesteps: npt.ArrayLike) -> FloatArray:
        """σ at timesteps, linear between whole ones."""
        places = np.asarray(timesteps, dtype=np.float64)
        return np.asarray(np.interp(places, np.arange(len(self)), self.sigmas))

    def timestep_at(self, sigmas: npt.ArrayLike) -> FloatArray:
        """Timesteps of noise levels, linear in log σ, clamped to the trained range."""
        log_sigma = np.log(np.maximum(sigmas, 1e-10))
        low = np.clip(np.searchsorted(self.log_sigmas, log_sigma, side="right") - 1, 0, len(self) - 2)
        below, above = self.log_sigmas[low], self.log_sigmas[low + 1]
        weight = np.clip((below - log_sigma) / (below - above), 0, 1)
        return np.asarray((1 - weight) * low + weight * (low + 1), dtype=np.float64)


def build_discrete_schedule(settings: Settings, zero_snr_alpha: float) -> DiscreteNoiseSchedule:
    """The trained noise levels; `zero_snr_alpha` stands in for ᾱ = 0 where zero terminal SNR asks for it.

    Raises:
        UnsupportedModelError: the betas give no usable levels.
    """
    betas = _betas(settings)
    # Betas far from any model's leave the range of float32; the levels are checked below.
    with np.errstate(all="ignore"):
        if settings.rescale_betas_zero_snr:
            betas = _zero_terminal_snr(betas)
        schedule = DiscreteNoiseSchedule.from_betas(
            betas,
            prediction_type=settings.prediction_type,
            terminal_alpha_cumprod=zero_snr_alpha if settings.rescale_betas_zero_snr else None,
        )
    finite = np.isfinite(schedule.log_sigmas).all()
    if not (finite and (np.diff(schedule.log_sigmas) > 0).all()):
        raise UnsupportedModelError.advised(
            "scheduler config: the betas give noise levels that do not rise from above zero to a finite one",
            "Change beta_start, beta_end or trained_betas in scheduler_config.json",
            joint=". ",
            component="scheduler",
        )
    return schedule


def _betas(settings: Settings) -> SingleArray:
    if settings.trained_betas is not None:
        return np.array(settings.trained_betas, dtype=np.float32)
    make = BETA_SCHEDULES[settings.beta_schedule]
    return make(settings.beta_start, settings.beta_end, settings.num_train_timesteps)


def _zero_terminal_snr(betas: SingleArray) -> SingleArray:
    """Shift and scale √ᾱ so that it ends at 0 (Lin et al. 2023, arXiv:2305.08891, algorithm 1)."""
    root = np.sqrt(_cumulative(betas))
    first, last = root[0], root[-1]
    rescaled = ((root - last) * (first / (first - last))) ** 2
    alphas = np.concatenate([rescaled[:1], rescaled[1:] / rescaled[:-1]])
    return (1 - alphas).astype(np.float32)


def _cumulative(betas: SingleArray) -> SingleArray:
    # torch accumulates a float32 product in double and rounds each result.
    return np.cumprod((np.float32(1) - betas).astype(np.float64)).astype(np.float32)


def _line(start: float, stop: float, count: int) -> SingleArray:
    """float32 `linspace` rounded as torch rounds it: from both ends inwards, product and sum in one go."""
    first, last = np.float32(start), np.float32(stop)
    step = float((last - first) / np.float32(count - 1))
    index = np.arange(count)
    below, above = float(first) + step * index, float(last) - step * (count - 1 - index)
    return np.where(index < count // 2, below, above).astype(np.float32)


def _linear(start: float, end: float, count: int) -> SingleArray:
    return _line(start, end, count)


def _scaled_linear(start: float, end: float, count: int) -> SingleArray:
    roots = _line(math.sqrt(start), math.sqrt(end), count)
    return np.asarray(roots * roots, dtype=np.float32)


def _squared_cosine(_start: float, _end: float, count: int) -> SingleArray:
    """β from ᾱ(t) = cos²((t + 0.008)/1.008 · π/2), at most 0.999 (Nichol & Dhariwal, arXiv:2102.09672)."""
    time = np.arange(count + 1) / count
    level = np.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
    return np.asarray(np.minimum(1 - level[1:] / level[:-1], 0.999), dtype=np.float32)


BETA_SCHEDULES: Mapping[str, Callable[[float, float, int], SingleArray]] = MappingProxyType(
    {"linear": _linear, "scaled_linear": _scaled_linear, "squaredcos_cap_v2": _squared_cosine}
)


def _epsilon(sigma: float) -> Scalings:
    return 1.0, -sigma, 1 / math.sqrt(sigma**2 + 1)


def _v_prediction(sigma: float) -> Scalings:
    return 1 / (sigma**2 + 1), -sigma / math.sqrt(sigma**2 + 1), 1 / math.sqrt(sigma**2 + 1)


def _sample(sigma: float) -> Scalings:
    return 0.0, 1.0, 1 / math.sqrt(sigma**2 + 1)


PREDICTION_TYPES: Mapping[str, Callable[[float], Scalings]] = MappingProxyType(
    {"epsilon": _epsilon, "v_prediction": _v_prediction, "sample": _sample}
)
