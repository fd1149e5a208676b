"""The denoiser as a function `(x, sigma) → denoised`. Only this module knows prediction types and guidance."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdrt.common.notices import Notices
from sdrt.common.spans import DENOISE, span
from sdrt.errors import ComponentError
from sdrt.families import DenoiserSpec
from sdrt.request.fitted import FittedRequest
from sdrt.run.conditioning import Conditioning
from sdrt.run.controls import Controls, bound_controls, residual_shapes
from sdrt.run.denoiser_inputs import check_fixed_size, fixed_inputs, fixed_length, shapes_of
from sdrt.run.features import Features, feature_shapes
from sdrt.run.image_prompts import SeenImages
from sdrt.run.preparation import Prepared
from sdrt.schedulers import Plan, SamplerRow
from sdrt.tasks.windows import Place, Windows

if TYPE_CHECKING:
    from sdrt.onnx.buffers import Bound
    from sdrt.onnx.session import Component
    from sdrt.run.components import LoadedComponents

__all__ = ["Denoiser", "bound_denoiser"]

_ALL: Place = (..., slice(None), slice(None))
_EVERY_ROW = slice(None)
Array = NDArray[np.float32]


@contextmanager
def bound_denoiser(
    components: LoadedComponents,
    spec: DenoiserSpec,
    request: FittedRequest,
    plan: Plan,
    conditioning: Conditioning,
    prepared: Prepared,
    *,
    factor: int,
    notices: Notices,
    sampler: SamplerRow,
    part: slice = _EVERY_ROW,
) -> Iterator[Denoiser]:
    """The denoiser of a pass, bound to buffers of its shapes. `factor` is the number of pixels per latent.

    The batch has the rows of `conditioning`, which are a `part` of those that `Denoiser.condition` gets.
    """
    component = components.denoiser(more := request.denoiser_inputs)
    windows = _windows(request, factor)
    fixed = fixed_inputs(component, spec, request, prepared, conditioning.batch)
    extra_channels = _extra_channels(prepared, conditioning)
    channels, *size = _shape_of_rows(prepared, extra_channels, windows)
    check_fixed_size(component, spec, size, factor)
    # With low_vram, the denoiser runs one row at a time.
    rows = fixed_length(component, spec.sample, 0) or (1 if components.low_vram else conditioning.batch)
    config, canvases = components.denoiser_config, prepared.canvases
    added = residual_shapes(config, component.inputs, rows, size) if more.residuals else {}
    added |= feature_shapes(config, component.inputs, rows, size) if more.features else {}
    seen = SeenImages.of(request, conditioning, canvases, component.inputs, factor=factor, config=config)
    added |= {} if seen is None else seen.shapes(rows, size)
    shapes = shapes_of(component, spec, rows, (channels, *size), conditioning.at(0) | fixed, added)
    share, weights = (sampler.guidance_share if conditioning.guides else 1.0), conditioning.weights
    guided = (request, plan, conditioning, canvases)
    bind = partial(bound_controls, components, spec, *guided, shapes=shapes, factor=factor)
    features = Features.of(components, *guided, shapes=shapes, factor=factor)
    with component.bound(shapes, (spec.output,)) as run, bind(run) as controls:
        yield Denoiser(
            component,
            run,
            spec,
            plan,
            batch=conditioning.batch,
            image_indices=conditioning.image_indices,
            weights=None if weights is None else weights * np.float32(share),
            scale=conditioning.scale * share,
            num_texts=conditioning.num_texts,
            rescale=request.guidance_rescale,
            notices=notices,
            keeps_unconditional=sampler.needs_unconditional and conditioning.guided,
            fixed=fixed,
            extra_channels=extra_channels,
            windows=windows,
            guides=[one for one in (controls, features) if one is not None],
            seen=seen,
            part=part,
        )


def _windows(request: FittedRequest, factor: int) -> Windows | None:
    return Windows.of_image(
        *request.size, tile_size=request.tile_size, overlap=request.tile_overlap, factor=factor
    )


def _shape_of_rows(prepared: Prepared, extra: Array | None, windows: Windows | None) -> list[int]:
    """Channels, height and width of what the network sees of each row."""
    _, channels, *size = prepared.x.shape
    channels += 0 if extra is None else extra.shape[1]
    return [channels, *(size if windows is None else windows.size)]


def _extra_channels(prepared: Prepared, conditioning: Conditioning) -> Array | None:
    """The further input channels of each row of the batch."""
    if prepared.extra_channels is None:
        return None
    return conditioning.repeat_for_batch(
        prepared.extra_channels, zero_unconditional=prepared.zero_unconditional
    )


class Denoiser:
    """The denoiser of one run, with buffers of one shape.

    With guidance the batch is [unconditional; conditional] and `eps = eps_u + Σ weight · (eps_c − eps_u)`. As in
    diffusers, the formula applies to the network's own output. Classifier-free guidance has one conditional row per
    image (Ho and Salimans 2022, arXiv:2207.12598). An image has several if AND joins prompts (Liu et al. 2022,
    arXiv:2206.01714) or if an input image has its own guidance (Brooks et al. 2023, arXiv:2211.09800).

    Args:
        component: the network.
        run: its buffers. They hold all rows of the batch, or one row with `low_vram`.
        spec: the names of its inputs and outputs.
        plan: gives the timestep of each sigma, and with its noise schedule c_skip, c_out and c_in.
        batch: the number of rows of the batch: one per image, or more with guidance.
        image_indices: for each conditional row, the index of its image.
        weights: for each conditional row, the weight of its difference from the unconditional row. None without
            guidance: then each image has one row.
        scale: the guidance scale. The weights already include it.
        num_texts: how many conditional rows have a text's weight. Those after them have the image's own.
        rescale: how far to restore the standard deviation that the output has without guidance, 0 to 1.
        notices: receives a warning if timesteps have to be rounded.
        keeps_unconditional: whether to keep the estimate without the prompt.
        fixed: inputs [batch, …] by name that are the same in every step, such as class labels.
        extra_channels: further input channels [batch, channels, h, w] that are the same in every step.
        windows: the windows through which the network sees the latents; None if it sees them whole.
        guides: the ControlNets and the T2I-Adapters that guide the network, if there are any.
        seen: how much and where the network sees image prompts; None without any.
        part: which rows of the inputs that `condition` gets are the batch.
    """

    def __init__(
        self,
        component: Component,
        run: Bound,
        spec: DenoiserSpec,
        plan: Plan,
        *,
        batch: int,
        image_indices: NDArray[np.intp],
        weights: Array | None,
        scale: float,
        num_texts: int | None = None,
        rescale: float = 0.0,
        notices: Notices,
        keeps_unconditional: bool = False,
        fixed: Mapping[str, NDArray[Any]],
        extra_channels: Array | None = None,
        windows: Windows | None = None,
        guides: Sequence[Controls | Features] = (),
        seen: SeenImages | None = None,
        part: slice = _EVERY_ROW,
    ) -> None:
        self._component, self._run, self._spec = component, run, spec
        self._plan, self._schedule, self._fixed, self._part = plan, plan.noise_schedule, fixed, part
        self._image_indices, self._weights, self._scale = image_indices, weights, np.float32(scale)
        self._num_texts = len(image_indices) if num_texts is None else num_texts
        # At a scale of 0, guidance has no effect that could be taken back.
        self._rescale = np.float32(rescale if scale else 0)
        unconditional = [] if weights is None else range(batch - len(image_indices))
        # For each row of the batch, the index of its image.
        self._image_of_row = [*unconditional, *image_indices]
        self._timestep = component.inputs[spec.timestep]
        self._time = np.zeros(run.shape(spec.timestep), self._timestep.dtype)
        rows, *rest = run.shape(spec.sample)
        self._groups = _groups_of(batch, rows)
        self._is_whole = rows == batch
        self._sample = np.zeros((batch, *rest), np.float32)
        self._conditions: Mapping[str, NDArray[Any]] = {}
        self._channels = self._sample.shape[1] - (0 if extra_channels is None else extra_channels.shape[1])
        self._windows, self._guides, self._seen = windows, guides, seen
        # With windows, each window needs its own part of the extra channels. Otherwise they are copied only once.
        self._extra_channels = extra_channels if windows is not None else None
        if extra_channels is not None and windows is None:
            self._sample[:, self._channels :] = extra_channels
        self._keeps_unconditional, self._unconditional = keeps_unconditional, np.zeros(0, np.float32)
        self.seconds: list[float] = []
        for name, array in ({} if seen is None else seen.scales).items():
            run.set(name, array)
        self._warn_of_rounding(notices)

    def condition(self, inputs: Mapping[str, NDArray[Any]]) -> None:
        """Set the other inputs by name, for every row. They stay the same until the next call of this method."""
        self._conditions = {name: array[self._part] for name, array in inputs.items()} | dict(self._fixed)
        if self._is_whole:
            self._upload(slice(None))

    def begin(self, evaluation: int) -> bool:
        """Tell which evaluation of the pass comes next, from 0. Returns whether it is guided in another way."""
        changed = [guide.begin(evaluation) for guide in self._guides]
        return any(changed)

    def __call__(self, x: Array, sigma: float) -> Array:
        """Estimate the clean latents [N, C, h, w] in `x`, which has the noise level `sigma`."""
        with span(DENOISE):
            if self._windows is None:
                denoised, self._unconditional = self._denoise(x, sigma, _ALL)
                return denoised
            total, without = np.zeros_like(x), np.zeros_like(x)
            for place in self._windows:
                denoised, unconditional = self._denoise(x[place], sigma, place)
                total[place] += denoised * self._windows.weight
                if self._keeps_unconditional:
                    without[place] += unconditional * self._windows.weight
            total /= self._windows.total
            self._unconditional = without / self._windows.total if self._keeps_unconditional else total
            return total

    @property
    def unconditional(self) -> Array:
        """The estimate of the last call without the prompt, if it was to be kept. Without guidance, that with it."""
        return self._unconditional

    def _denoise(self, x: Array, sigma: float, place: Place) -> tuple[Array, Array]:
        """Estimate the clean latents at one `place`, which `x` is cut to: guided, and if it is kept without prompt."""
        c_skip, c_out, c_in = self._schedule.scalings(sigma)
        timestep = self._plan.timestep(sigma)
        scaled = x * np.float32(c_in)
        for row, image in enumerate(self._image_of_row):
            self._sample[row, : self._channels] = scaled[image]
        if self._extra_channels is not None:
            self._sample[:, self._channels :] = self._extra_channels[place]
        output = self._evaluate(timestep, place)
        denoised: Array = self._guide(output, len(x)) * np.float32(c_out)
        denoised += np.float32(c_skip) * x
        if not self._keeps_unconditional:
            return denoised, denoised
        return denoised, output[: len(x)] * np.float32(c_out) + np.float32(c_skip) * x

    def _evaluate(self, timestep: float, place: Place) -> Array:
        """Return the network's output for the batch. The next call may overwrite it."""
        self._time.fill(_rounded(timestep, self._timestep.dtype))
        self._run.set(self._spec.timestep, self._time)
        start = time.perf_counter()
        output = self._run_network(place)
        self.seconds.append(time.perf_counter() - start)
        expected = (len(self._sample), self._channels, *self._sample.shape[2:])
        if output.shape != expected:
            raise ComponentError(
                f"{self._component.name}: {self._spec.output} has shape {output.shape}, expected {expected}: "
                "export the model again",
                component=self._component.name,
                fits=str(expected),
            )
        self._component.check_finite(self._spec.output, output)
        return output

    def _run_network(self, place: Place) -> Array:
        """Run the network once, or once for each group of rows, and the ControlNets before it."""
        sample, output = self._spec.sample, self._spec.output
        if self._is_whole:
            self._guide_inside(np.arange(len(self._sample)), place)
            self._mask_images(np.arange(len(self._sample)), place)
            self._run.set(sample, self._sample)
            return self._run()[output]
        outputs = []
        for rows in self._groups:
            self._upload(rows)
            self._guide_inside(rows, place)
            self._mask_images(rows, place)
            self._run.set(sample, self._sample[rows])
            outputs.append(self._run()[output].copy())
        return np.concatenate(outputs)[: len(self._sample)]

    def _guide_inside(self, rows: NDArray[np.intp], place: Place) -> None:
        """Set what ControlNets and T2I-Adapters add inside the network for these rows."""
        if not self._guides:
            return
        inputs = {name: array[rows] for name, array in self._conditions.items()}
        inputs[self._spec.sample] = self._sample[rows, : self._channels]
        inputs[self._spec.timestep] = self._time
        for guide in self._guides:
            for name, array in (guide(inputs, rows, place) or {}).items():
                self._run.set(name, array)

    def _mask_images(self, rows: NDArray[np.intp], place: Place) -> None:
        """Set where the network sees image prompts, for these rows."""
        if self._seen is None:
            return
        for name, array in self._seen.masks(place, self._sample.shape[2:]).items():
            self._run.set(name, array if len(array) == 1 else array[rows])

    def _upload(self, rows: slice | NDArray[np.intp]) -> None:
        for name, array in self._conditions.items():
            self._run.set(name, array[rows])

    def _guide(self, output: Array, images: int) -> Array:
        """Combine the output's rows [batch, …] to one row per image [N, …], by the formula in the class's docstring."""
        if self._weights is None:
            return output
        unconditional, conditional = output[:images], output[images:]
        added = np.zeros_like(unconditional)
        of_texts = added
        # A loop over the rows, because NumPy's gather and scatter take five times as long.
        for row, image in enumerate(self._image_indices):
            if row == self._num_texts and self._rescale:
                of_texts = added.copy()
            difference = conditional[row] - unconditional[image]
            difference *= self._weights[row]
            added[image] += difference
        total: Array = unconditional + added
        if self._rescale:
            # The result of the texts at a scale of 1. With one text per image, it is the conditional output.
            text = unconditional + of_texts / self._scale
            spread = text.std((1, 2, 3), keepdims=True) / total.std((1, 2, 3), keepdims=True)
            total *= self._rescale * spread + (1 - self._rescale)
        return total

    def _warn_of_rounding(self, notices: Notices) -> None:
        dtype = self._timestep.dtype
        lost = [abs(float(dtype.type(_rounded(t, dtype))) - t) for t in self._plan.timesteps]
        # Schedulers compute in float32, which is less exact by up to a ten-thousandth. An adaptive one uses fractions.
        if max(lost, default=0) < 1e-3 and not (self._plan.adaptive and dtype.kind in "iu"):
            return
        takes = f"timesteps in {dtype.name}" if dtype.kind == "f" else "whole timesteps"
        notices.warn(
            f"this model takes {takes}, but the scheduler uses fractions, so they are rounded: "
            "export the checkpoint again with sdrt export, or choose another spacing"
        )


def _groups_of(batch: int, rows: int) -> list[NDArray[np.intp]]:
    """The rows for each call of a network that takes `rows` at once. The last row of the batch fills up a group."""
    return [np.minimum(np.arange(first, first + rows), batch - 1) for first in range(0, batch, rows)]


def _rounded(timestep: float, dtype: np.dtype[Any]) -> float:
    return np.rint(timestep) if dtype.kind in "iu" else timestep
