"""The U-Net as `(x, sigma) → denoised`: the one place that knows prediction types, timesteps and guidance."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sdrt.errors import ComponentError
from sdrt.notices import Notices
from sdrt.schedulers import NoiseSchedule, Plan

if TYPE_CHECKING:
    from sdrt.buffers import Bound
    from sdrt.session import Component

__all__ = ["INPUTS", "OUTPUT", "Denoiser"]

INPUTS = ("sample", "timestep", "encoder_hidden_states")
OUTPUT = "out_sample"
Array = NDArray[np.float32]


class Denoiser:
    """One run's U-Net, bound to buffers of one shape.

    With guidance (scale above 1) the batch is [unconditional; conditional] and
    `eps = eps_u + scale · (eps_c − eps_u)` (Ho and Salimans 2022), on the
    U-Net's own output as diffusers does.

    Args:
        unet: the component `run` belongs to.
        run: its buffers, batch N, or 2N with guidance.
        plan: gives the timestep of each sigma.
        schedule: gives c_skip, c_out, c_in of each sigma.
        guidance_scale: the scale, or None for a plain conditional run.
    """

    def __init__(
        self,
        unet: Component,
        run: Bound,
        plan: Plan,
        *,
        schedule: NoiseSchedule,
        guidance_scale: float | None,
        notices: Notices,
    ) -> None:
        self._unet, self._run, self._plan, self._schedule = unet, run, plan, schedule
        self._scale = guidance_scale
        self._timestep = unet.inputs["timestep"]
        self._time = np.zeros(run.shape("timestep"), self._timestep.dtype)
        self._sample = np.zeros(run.shape("sample"), np.float32)
        self.seconds: list[float] = []
        self._warn_of_rounding(notices)

    def condition(self, embeds: Array) -> None:
        """Upload text embeddings [batch, length, width]; they stay until they are replaced."""
        self._run.set("encoder_hidden_states", embeds)

    def __call__(self, x: Array, sigma: float) -> Array:
        """Estimate the clean latents in `x` [N, C, h, w] = clean + sigma · noise."""
        c_skip, c_out, c_in = self._schedule.scalings(sigma)
        timestep = self._plan.timestep(sigma)
        np.multiply(x, np.float32(c_in), out=self._sample[: len(x)])
        if self._scale is not None:
            self._sample[len(x) :] = self._sample[: len(x)]
        output = self._evaluate(timestep)
        denoised: Array = self._guide(output) * np.float32(c_out)
        denoised += np.float32(c_skip) * x
        return denoised

    def _evaluate(self, timestep: float) -> Array:
        """The U-Net's output, in a buffer that the next call overwrites."""
        self._run.set("sample", self._sample)
        value = np.rint(timestep) if self._timestep.dtype.kind in "iu" else timestep
        self._time.fill(value)
        self._run.set("timestep", self._time)
        start = time.perf_counter()
        output = self._run()[OUTPUT]
        self.seconds.append(time.perf_counter() - start)
        if output.shape != self._sample.shape:
            raise ComponentError(f"unet: {OUTPUT} has shape {output.shape}, expected {self._sample.shape}")
        self._unet.check_finite(OUTPUT, output)
        return output

    def _guide(self, output: Array) -> Array:
        if self._scale is None:
            return output
        unconditional, conditional = np.split(output, 2)
        guided: Array = unconditional + np.float32(self._scale) * (conditional - unconditional)
        return guided

    def _warn_of_rounding(self, notices: Notices) -> None:
        whole = self._timestep.dtype.kind in "iu"
        if whole and any(timestep != round(timestep) for timestep in self._plan.timesteps):
            notices.warn(
                "this U-Net takes whole timesteps and the scheduler visits fractions, which are rounded: "
                "export the checkpoint again with sdrt export, or choose another spacing"
            )
