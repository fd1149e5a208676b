"""The noise schedule of models trained as in EDM (Karras et al. 2022, arXiv:2206.00364)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sdrt.schedulers.noise_schedule import FloatArray, NoiseSchedule, Scalings
from sdrt.schedulers.settings import Settings

__all__ = ["EdmNoiseSchedule", "build_edm_schedule"]


@dataclass(frozen=True, kw_only=True)
class EdmNoiseSchedule(NoiseSchedule):
    """Allows any noise level. The data has the standard deviation `sigma_data`, and timesteps are ¼ log σ."""

    sigma_data: float
    prediction_type: str

    def signal(self, sigma: float) -> float:
        """1: the variance explodes."""
        return 1.0

    def scalings(self, sigma: float) -> Scalings:
        """(c_skip, c_out, c_in) of arXiv:2206.00364, table 1; with v prediction c_out is negative, as in diffusers."""
        total = math.hypot(sigma, self.sigma_data)
        c_out = sigma * self.sigma_data / total
        sign = -1.0 if self.prediction_type == "v_prediction" else 1.0
        return (self.sigma_data / total) ** 2, sign * c_out, 1 / total

    def timestep_at(self, sigmas: npt.ArrayLike) -> FloatArray:
        """¼ log σ."""
        return np.asarray(0.25 * np.log(np.asarray(sigmas, dtype=np.float64)), dtype=np.float64)

    def sigma_at(self, timesteps: npt.ArrayLike) -> FloatArray:
        """e to the four timesteps."""
        return np.asarray(np.exp(4 * np.asarray(timesteps, dtype=np.float64)), dtype=np.float64)


def build_edm_schedule(settings: Settings, _zero_snr_alpha: float) -> EdmNoiseSchedule:
    """EDM's preconditioning, which needs no trained levels."""
    return EdmNoiseSchedule(sigma_data=settings.sigma_data, prediction_type=settings.prediction_type)
