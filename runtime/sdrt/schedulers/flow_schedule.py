"""The noise schedule of models trained by flow matching (rectified flow, Esser et al. 2024, arXiv:2403.03206)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from sdrt.schedulers.noise_schedule import FloatArray, NoiseSchedule, Scalings
from sdrt.schedulers.settings import Settings

__all__ = ["FlowNoiseSchedule", "build_flow_schedule"]

Levels = TypeVar("Levels", FloatArray, npt.NDArray[np.float32])


@dataclass(frozen=True, kw_only=True)
class FlowNoiseSchedule(NoiseSchedule):
    """A straight line from the clean latents at σ = 0 to noise at σ = 1; the model predicts v = noise - clean.

    Attributes:
        num_train_timesteps: the timestep at σ = 1.
        shift: above 1, a run spends more of its steps at high noise levels (arXiv:2403.03206, equation 23).
    """

    num_train_timesteps: int = 1000
    shift: float = 1.0

    def signal(self, sigma: float) -> float:
        """1 - σ."""
        return 1 - sigma

    def scalings(self, sigma: float) -> Scalings:
        """(c_skip, c_out, c_in), with denoised = x - σ·v."""
        return 1.0, -sigma, 1.0

    def timestep_at(self, sigmas: npt.ArrayLike) -> FloatArray:
        """In proportion to σ."""
        return np.asarray(sigmas, dtype=np.float64) * self.num_train_timesteps

    def sigma_at(self, timesteps: npt.ArrayLike) -> FloatArray:
        """In proportion to the timestep."""
        return np.asarray(timesteps, dtype=np.float64) / self.num_train_timesteps

    def shifted(self, sigmas: Levels) -> Levels:
        """Noise levels moved up by `shift`; 0 and 1 stay."""
        return self.shift * sigmas / (1 + (self.shift - 1) * sigmas)


def build_flow_schedule(settings: Settings, _zero_snr_alpha: float) -> FlowNoiseSchedule:
    """Flow matching, which needs no betas."""
    return FlowNoiseSchedule(num_train_timesteps=settings.num_train_timesteps, shift=settings.shift)
