"""The ControlNets of a pass: before each call of the denoiser, they compute what it adds inside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdrt.families import ControlNetSpec, DenoiserSpec
from sdrt.images.preprocessing import preprocessed
from sdrt.images.reading import resized
from sdrt.model_folder.graph_kind import CONTROLLED_GRAPH
from sdrt.request.controls import Control
from sdrt.request.fitted import FittedRequest
from sdrt.schedulers import Plan
from sdrt.tasks.windows import Place

if TYPE_CHECKING:
    from sdrt.onnx.buffers import Bound
    from sdrt.onnx.session import Component
    from sdrt.run.components import LoadedComponents
    from sdrt.run.conditioning import Conditioning
    from sdrt.tasks.inpainting import Canvas

__all__ = ["Controls", "bound_controls", "control_maps", "residual_shapes"]

Array = NDArray[np.float32]
Image8 = NDArray[np.uint8]


def control_maps(control: Control, request: FittedRequest, canvases: Sequence[Canvas]) -> list[Image8]:
    """What a ControlNet sees of each prompt's control image: [height, width, 3] of 8 bits.

    With `padding_mask_crop`, it sees the same part of it as the denoiser sees of the image.
    """
    count, made = request.num_images_per_prompt, []
    for index, image in enumerate(control.images):
        if canvases and request.padding_mask_crop is not None:
            image = canvases[index * count].cut(image)
        # Edges are found in the size that the network sees, so that they are as thin there.
        scaled = resized(image, request.height, request.width)
        made.append(
            preprocessed(
                scaled,
                request.control_preprocessor,
                **_options(request),
            )
        )
    return made


def _options(request: FittedRequest) -> dict[str, float]:
    if request.control_preprocessor != "canny":
        return {}
    return {"low": request.canny_low_threshold, "high": request.canny_high_threshold}


@dataclass(frozen=True, kw_only=True, eq=False)
class _Net:
    """One ControlNet with its buffers. `images` are what each row [batch, 3, H, W] sees, from 0 to 1."""

    component: Component
    run: Bound
    spec: ControlNetSpec
    control: Control
    images: Array
    scales: Array
    """The factor of each output at a scale of 1."""

    def __call__(self, scale: float, inputs: Mapping[str, NDArray[Any]], image: Array) -> list[Array]:
        """The outputs for some rows, in the order of the graph."""
        given = {**inputs, self.spec.image: image, self.spec.scale: self.scales * np.float32(scale)}
        for name, array in given.items():
            if name in self.component.inputs:
                self.run.set(name, array)
        outputs = self.run()
        self.component.check_finite(self.spec.middle, outputs[self.spec.middle])
        return [outputs[name] for name in self.run.outputs]


class Controls:
    """The ControlNets of one pass, with buffers of one shape.

    Args:
        nets: the ControlNets.
        shapes: the shapes of the denoiser's further inputs for one call, by name.
        unconditional: how many rows of the batch, the first ones, are not guided.
        factor: how many pixels one latent covers, along each side.
        evaluations: how many evaluations the pass has.
    """

    def __init__(
        self,
        nets: Sequence[_Net],
        *,
        shapes: Mapping[str, tuple[int, ...]],
        unconditional: int,
        factor: int,
        evaluations: int,
    ) -> None:
        self._nets, self._unconditional, self._factor = nets, unconditional, factor
        self._evaluations, self._scales = evaluations, [0.0] * len(nets)
        self._sums = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        # The denoiser's buffers may still hold what an earlier run added.
        self._is_zero = False
        self.begin(0)

    def begin(self, evaluation: int) -> None:
        """Choose the scales of an evaluation, counted from 0."""
        self._scales = [net.control.scale_at(evaluation, self._evaluations) for net in self._nets]

    def __call__(
        self, inputs: Mapping[str, NDArray[Any]], rows: NDArray[np.intp], place: Place
    ) -> Mapping[str, Array] | None:
        """What the denoiser adds for some `rows` of the batch, by the names of its inputs. None if nothing changed.

        Args:
            inputs: the denoiser's inputs for these rows, with the latents alone.
            rows: the rows' indices in the batch.
            place: which part of the image the latents are.
        """
        guided = np.flatnonzero(rows >= self._unconditional)
        active = [(net, scale) for net, scale in zip(self._nets, self._scales, strict=True) if scale]
        if not active or not len(guided):
            return self._nothing()
        for number, (net, scale) in enumerate(active):
            image = net.images[rows[guided]][self._pixels(place)]
            own = {name: array if array.ndim == 0 else array[guided] for name, array in inputs.items()}
            self._add(net(scale, own, image), guided, first=number == 0)
        self._is_zero = False
        return self._sums

    def _nothing(self) -> Mapping[str, Array] | None:
        if self._is_zero:
            return None
        for total in self._sums.values():
            total.fill(0)
        self._is_zero = True
        return self._sums

    def _add(self, outputs: Sequence[Array], guided: NDArray[np.intp], *, first: bool) -> None:
        for total, output in zip(self._sums.values(), outputs, strict=True):
            if first and len(guided) < len(total):
                total.fill(0)
            # The guided rows follow one another, after those without guidance.
            own = total[guided[0] :]
            np.copyto(own, output) if first else np.add(own, output, out=own)

    def _pixels(self, place: Place) -> Place:
        """The same place in the image."""

        def scaled(side: slice) -> slice:
            if side == slice(None):
                return side
            return slice(side.start * self._factor, side.stop * self._factor)

        _, rows, columns = place
        return ..., scaled(rows), scaled(columns)


@contextmanager
def bound_controls(
    components: LoadedComponents,
    denoiser: DenoiserSpec,
    request: FittedRequest,
    plan: Plan,
    conditioning: Conditioning,
    canvases: Sequence[Canvas],
    *,
    shapes: Mapping[str, tuple[int, ...]],
    factor: int,
) -> Iterator[Controls | None]:
    """The ControlNets of a pass, bound to buffers for the denoiser's inputs of these `shapes`. None without any.

    Args:
        components: the model's components.
        denoiser: the denoiser's names.
        request: the request.
        plan: the noise levels that the pass visits.
        conditioning: the rows of the batch.
        canvases: for each image, the image that the user gave and its mask; empty without a mask.
        shapes: the shapes of the denoiser's inputs, by name.
        factor: how many pixels one latent covers, along each side.
    """
    if not request.is_controlled:
        yield None
        return
    unconditional = conditioning.batch - len(conditioning.image_indices) if request.guesses else 0
    guided = min(shapes[denoiser.sample][0], conditioning.batch - unconditional)
    with ExitStack() as stack:
        nets = []
        for spec, control in components.controls_of(request):
            maps = control_maps(control, request, canvases)
            per_image = np.stack([_unit(one) for one in maps for _ in range(request.num_images_per_prompt)])
            images = conditioning.repeat_for_batch(per_image, zero_unconditional=False)
            component = components.controlnet(spec)
            own = _shapes(component, spec, denoiser, shapes, rows=guided, factor=factor)
            run = stack.enter_context(component.bound(own, tuple(component.outputs)))
            scales = _scales(len(component.outputs), grows=request.guesses and not spec.pools)
            nets.append(
                _Net(component=component, run=run, spec=spec, control=control, images=images, scales=scales)
            )
        added = {name: shape for name, shape in shapes.items() if CONTROLLED_GRAPH.inputs.has(name)}
        yield Controls(
            nets, shapes=added, unconditional=unconditional, factor=factor, evaluations=plan.num_evaluations
        )


def _shapes(
    component: Component,
    spec: ControlNetSpec,
    denoiser: DenoiserSpec,
    others: Mapping[str, tuple[int, ...]],
    *,
    rows: int,
    factor: int,
) -> dict[str, tuple[int, ...]]:
    """The shapes of a ControlNet's inputs for some `rows`. `others` are those of the denoiser's inputs."""
    found = {
        name: (rows, *others[name][1:]) if others[name] else () for name in component.inputs if name in others
    }
    *_, height, width = others[denoiser.sample]
    # A denoiser for inpainting takes more channels than the latents.
    found[denoiser.sample] = (rows, _channels(component, denoiser.sample), height, width)
    found[spec.image] = (rows, _channels(component, spec.image), height * factor, width * factor)
    found[spec.scale] = (len(component.outputs),)
    return {name: found[name] for name in component.inputs}


def _channels(component: Component, name: str) -> int:
    return int(component.inputs[name].shape[1])


def _unit(image: Image8) -> Array:
    """An image [H, W, 3] of 8 bits as a ControlNet takes it, [3, H, W] from 0 to 1."""
    return np.ascontiguousarray((image.astype(np.float32) / np.float32(255)).transpose(2, 0, 1))


def _scales(count: int, *, grows: bool) -> Array:
    """The factor of each output. In guess mode they grow from 0.1 to 1, from the finest layer to the coarsest."""
    if not grows:
        return np.ones(count, np.float32)
    return np.logspace(-1, 0, count).astype(np.float32)


def residual_shapes(
    config: Mapping[str, Any], inputs: Mapping[str, Any], rows: int, size: Sequence[int]
) -> dict[str, tuple[int, ...]]:
    """The shapes of a denoiser's inputs for what ControlNets give.

    Args:
        config: the denoiser's config.
        inputs: the specs of the graph's inputs, by name, which say the channels.
        rows: the rows of a call.
        size: height and width of the latents.
    """
    levels = config["block_out_channels"]
    layers = config["layers_per_block"]
    layers = layers if isinstance(layers, (list, tuple)) else [layers] * len(levels)
    # Odd sizes are rounded up, or down where the downsampling has no padding.
    up = config.get("downsample_padding", 1)
    sizes, current = [tuple(size)], tuple(size)
    for level, count in enumerate(layers):
        sizes += [current] * count
        if level < len(layers) - 1:
            current = tuple((side + up) // 2 for side in current)
            sizes.append(current)
    names = [name for name in inputs if CONTROLLED_GRAPH.inputs.has(name)]
    return {
        name: (rows, inputs[name].shape[1], *each)
        for name, each in zip(names, [*sizes, current], strict=True)
    }
