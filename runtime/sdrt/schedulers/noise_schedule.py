"""What a model was trained on: how much noise each level has, and what the model's output means there."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

__all__ = ["FloatArray", "Latents", "NoiseSchedule", "Scalings"]

FloatArray = npt.NDArray[np.float64]
Latents = npt.NDArray[np.float32]
Scalings = tuple[float, float, float]


class NoiseSchedule(ABC):
    """The interface of every noise schedule. A new kind of training is a new subclass.

    A state at the noise level σ is x = signal(σ) · clean + σ · noise. The signal is 1 for variance-exploding
    schedules (Stable Diffusion's betas, with σ from 0 to about 15, and EDM) and 1 - σ in flow matching (σ from 0 to 1).
    """

    @abstractmethod
    def signal(self, sigma: float) -> float:
        """The factor of the clean latents in a state at `sigma`."""

    @abstractmethod
    def scalings(self, sigma: float) -> Scalings:
        """(c_skip, c_out, c_in), with denoised = c_skip·x + c_out·model(c_in·x, timestep)."""

    @abstractmethod
    def timestep_at(self, sigmas: npt.ArrayLike) -> FloatArray:
        """The timesteps that the model gets at noise levels, in the same shape."""

    @abstractmethod
    def sigma_at(self, timesteps: npt.ArrayLike) -> FloatArray:
        """The noise levels of timesteps, in the same shape: the inverse of `timestep_at`."""

    def noised(self, clean: Latents, noise: Latents, sigma: float) -> Latents:
        """The state of `clean` latents at `sigma`, with standard normal `noise` of the same shape; float32."""
        state: Latents = np.float32(self.signal(sigma)) * clean + np.float32(sigma) * noise
        return state
