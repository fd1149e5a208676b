"""The denoiser as `(x, sigma) → denoised`: the one place that knows prediction types, timesteps and guidance."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdrt.common.notices import Notices
from sdrt.common.spans import DENOISE, span
from sdrt.errors import ComponentError
from sdrt.families import DenoiserSpec
from sdrt.schedulers import NoiseSchedule, Plan
from sdrt.tasks.windows import Place, Windows

if TYPE_CHECKING:
    from sdrt.onnx.buffers import Bound
    from sdrt.onnx.session import Component

__all__ = ["Denoiser"]

_ALL: Place = (..., slice(None), slice(None))
Array = NDArray[np.float32]


class Denoiser:
    """One run's denoiser, bound to buffers of one shape.

    With guidance the batch is [unconditional; conditional] and `eps = eps_u + Σ weight · (eps_c − eps_u)`, on the
    network's own output as diffusers does: one conditional row for each image in classifier-free guidance (Ho and
    Salimans 2022, arXiv:2207.12598), several where prompts are put together (Liu et al. 2022, arXiv:2206.01714) or an
    image guides too (Brooks et al. 2023, arXiv:2211.09800).

    Args:
        component: the network that `run` belongs to.
        run: its buffers.
        spec: the names of its inputs and outputs.
        batch: rows of the batch, N, or more with guidance; as many at a time as `run` is for.
        plan: gives the timestep of each sigma.
        schedule: gives c_skip, c_out, c_in of each sigma.
        owners: for each conditional row, the number of its image.
        weights: for each conditional row, how much its difference from the unconditional one counts; None for a plain
            conditional run, with one row for each image.
        scale: of classifier-free guidance, which is in the weights already.
        rescale: the share of guidance's effect on the spread of an image's output to take back.
        beside: channels that the network sees beside the latents in every step, [batch, channels, h, w].
        windows: the parts in which it sees the latents, of the size that `run` is for; all at once without.
    """

    def __init__(
        self,
        component: Component,
        run: Bound,
        spec: DenoiserSpec,
        plan: Plan,
        *,
        batch: int,
        schedule: NoiseSchedule,
        owners: NDArray[np.intp],
        weights: Array | None,
        scale: float,
        rescale: float = 0.0,
        notices: Notices,
        beside: Array | None = None,
        windows: Windows | None = None,
    ) -> None:
        self._component, self._run, self._spec = component, run, spec
        self._plan, self._schedule = plan, schedule
        # At a scale of 0 guidance adds nothing.
        self._owners, self._scale = owners, np.float32(scale)
        self._rescale = np.float32(rescale if scale else 0)
        self._weights = weights
        # For each row of the batch, the number of its image.
        self._images = [*([] if weights is None else range(batch - len(owners))), *owners]
        self._timestep = component.inputs[spec.timestep]
        self._time = np.zeros(run.shape(spec.timestep), self._timestep.dtype)
        rows, *rest = run.shape(spec.sample)
        self._turns = [slice(first, first + rows) for first in range(0, batch, rows)]
        self._sample = np.zeros((batch, *rest), np.float32)
        self._conditions: Mapping[str, NDArray[Any]] = {}
        self._channels = self._sample.shape[1] - (0 if beside is None else beside.shape[1])
        self._windows = windows
        # Seen in windows, it changes from one to the next; else it is in place for all steps.
        self._beside = beside if windows is not None else None
        if beside is not None and windows is None:
            self._sample[:, self._channels :] = beside
        self.seconds: list[float] = []
        self._warn_of_rounding(notices)

    def condition(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        """Upload the other inputs by name, each [batch, …]; they stay until they are replaced."""
        self._conditions = inputs
        if len(self._turns) == 1:
            self._upload(self._turns[0])

    def __call__(self, x: Array, sigma: float) -> Array:
        """Estimate the clean latents in `x` [N, C, h, w] = clean + sigma · noise."""
        with span(DENOISE):
            if self._windows is None:
                return self._denoise(x, sigma, _ALL)
            total = np.zeros_like(x)
            for place in self._windows:
                total[place] += self._denoise(x[place], sigma, place) * self._windows.weight
            total /= self._windows.total
            return total

    def _denoise(self, x: Array, sigma: float, place: Place) -> Array:
        """The same of what is seen in one `place`."""
        c_skip, c_out, c_in = self._schedule.scalings(sigma)
        timestep = self._plan.timestep(sigma)
        scaled = x * np.float32(c_in)
        for row, image in enumerate(self._images):
            self._sample[row, : self._channels] = scaled[image]
        if self._beside is not None:
            self._sample[:, self._channels :] = self._beside[place]
        output = self._evaluate(timestep)
        denoised: Array = self._guide(output, len(x)) * np.float32(c_out)
        denoised += np.float32(c_skip) * x
        return denoised

    def _evaluate(self, timestep: float) -> Array:
        """The network's output, in a buffer that the next call overwrites."""
        value = np.rint(timestep) if self._timestep.dtype.kind in "iu" else timestep
        self._time.fill(value)
        self._run.set(self._spec.timestep, self._time)
        start = time.perf_counter()
        output = self._in_turns()
        self.seconds.append(time.perf_counter() - start)
        expected = (len(self._sample), self._channels, *self._sample.shape[2:])
        if output.shape != expected:
            raise ComponentError(
                f"{self._component.name}: {self._spec.output} has shape {output.shape}, expected {expected}",
                component=self._component.name,
                fits=str(expected),
            )
        self._component.check_finite(self._spec.output, output)
        return output

    def _in_turns(self) -> Array:
        """The network's output for all rows."""
        sample, output = self._spec.sample, self._spec.output
        if len(self._turns) == 1:
            self._run.set(sample, self._sample)
            return self._run()[output]
        outputs = []
        for turn in self._turns:
            self._upload(turn)
            self._run.set(sample, self._sample[turn])
            outputs.append(self._run()[output].copy())
        return np.concatenate(outputs)

    def _upload(self, rows: slice) -> None:
        for name, array in self._conditions.items():
            self._run.set(name, array[rows])

    def _guide(self, output: Array, images: int) -> Array:
        if self._weights is None:
            return output
        unconditional, conditional = output[:images], output[images:]
        added = np.zeros_like(unconditional)
        # Row by row: what gathers and scatters rows takes five times as long.
        for row, owner in enumerate(self._owners):
            difference = conditional[row] - unconditional[owner]
            difference *= self._weights[row]
            added[owner] += difference
        total: Array = unconditional + added
        if self._rescale:
            # What the weights say, at a scale of 1: with one row for each image, the conditional output.
            text = unconditional + added / self._scale
            spread = text.std((1, 2, 3), keepdims=True) / total.std((1, 2, 3), keepdims=True)
            total *= self._rescale * spread + (1 - self._rescale)
        return total

    def _warn_of_rounding(self, notices: Notices) -> None:
        whole = self._timestep.dtype.kind in "iu"
        if whole and any(timestep != round(timestep) for timestep in self._plan.timesteps):
            notices.warn(
                "this model takes whole timesteps and the scheduler visits fractions, which are rounded: "
                "export the checkpoint again with sdrt export, or choose another spacing"
            )
