"""The ControlNets of a pass: before each call of the denoiser, they compute what it adds inside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdrt.families import ControlNetSpec, DenoiserSpec
from sdrt.images.preprocessing import preprocessed
from sdrt.images.reading import resized
from sdrt.model_folder.graph_kind import CONTROLLED_GRAPH
from sdrt.request.control_modes import BALANCED, CONTROL_MODES, GUESS
from sdrt.request.controls import Control
from sdrt.request.fitted import FittedRequest
from sdrt.run.image_prompts import level_sizes
from sdrt.schedulers import Plan
from sdrt.tasks.windows import Place

if TYPE_CHECKING:
    from sdrt.onnx.buffers import Bound
    from sdrt.onnx.session import Component
    from sdrt.run.components import LoadedComponents
    from sdrt.run.conditioning import Conditioning
    from sdrt.tasks.inpainting import Canvas

__all__ = ["Controls", "bound_controls", "control_maps", "pixels_of", "residual_shapes"]

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
                control.preprocessor,
                **_options(control, request),
            )
        )
    return made


def _options(control: Control, request: FittedRequest) -> dict[str, float]:
    if control.preprocessor != "canny":
        return {}
    return {"low": request.canny_low_threshold, "high": request.canny_high_threshold}


class _Net:
    """One ControlNet with its buffers.

    Args:
        component: the graph.
        run: its buffers.
        spec: the names of its inputs and outputs.
        control: what it does.
        images: what each row of the batch sees [batch, 3, H, W], from 0 to 1.
        first: the first row of the batch that it guides. It guides all that follow.
    """

    def __init__(
        self,
        component: Component,
        run: Bound,
        spec: ControlNetSpec,
        control: Control,
        images: Array,
        first: int,
    ) -> None:
        self.control, self._component, self._run, self._spec = control, component, run, spec
        self._images, self.first = images, first
        # The factor of each output at a scale of 1. Guess mode weakens no output of a network that pools.
        is_even = spec.pools and control.mode is GUESS
        mode = CONTROL_MODES[BALANCED] if is_even else control.mode
        self._scales = np.array(mode.weights(len(component.outputs)), np.float32)
        # Which image the buffers hold. They may have it from an earlier run.
        self._shown: tuple[bytes, Place] | None = None
        self._checked = self._delivers = False

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs, in the order of the graph."""
        return self._run.outputs

    def __call__(
        self, scale: float, inputs: Mapping[str, NDArray[Any]], rows: NDArray[np.intp], place: Place
    ) -> Mapping[str, Array]:
        """The outputs for some `rows` of the batch at a `place` in the image, by name, except those of `deliver`."""
        for name, array in {**inputs, self._spec.scale: self._scales * np.float32(scale)}.items():
            if name in self._component.inputs:
                self._run.set(name, array)
        if self._shown != (shown := (rows.tobytes(), place)):
            self._run.set(self._spec.image, self._images[rows][place])
            self._shown = shown
        outputs = self._run()
        # The first call checks every output, because a damaged weight may be behind any. An overflow reaches the middle
        # too, so later calls check only that.
        for name in [self._spec.middle] if self._checked else outputs:
            self._component.check_finite(name, outputs[name])
        self._checked = True
        return outputs

    def deliver(self, denoiser: Bound, names: Sequence[str]) -> None:
        """From the next call on, write the outputs directly to the denoiser's inputs `names` where possible.

        The middle's output is small, and stays in the host's memory: it tells whether the run overflowed.
        """
        if self._delivers or self._run.overflows:
            return
        self._delivers = True
        for output, name in zip(self.outputs, names, strict=True):
            if output != self._spec.middle:
                self._run.write_to(output, denoiser, name)


class Controls:
    """The ControlNets of one pass, with buffers of one shape.

    Args:
        nets: the ControlNets.
        shapes: the shapes of the denoiser's further inputs for one call, by name.
        factor: how many pixels one latent covers, along each side.
        evaluations: how many evaluations the pass has.
        denoiser: the denoiser's buffers. A ControlNet that is alone and guides all rows writes to them itself.
    """

    def __init__(
        self,
        nets: Sequence[_Net],
        *,
        shapes: Mapping[str, tuple[int, ...]],
        factor: int,
        evaluations: int,
        denoiser: Bound,
    ) -> None:
        self._nets, self._factor = nets, factor
        self._evaluations, self._scales = evaluations, [0.0] * len(nets)
        self._sums = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        self._denoiser = denoiser if len(nets) == 1 and not nets[0].first else None
        # The denoiser's buffers may still hold what an earlier run added.
        self._is_zero = False
        self.begin(0)

    def begin(self, evaluation: int) -> bool:
        """Choose the scales of an evaluation, counted from 0. Returns whether they are others than before."""
        before = self._scales
        self._scales = [net.control.scale_at(evaluation, self._evaluations) for net in self._nets]
        return self._scales != before

    def __call__(
        self, inputs: Mapping[str, NDArray[Any]], rows: NDArray[np.intp], place: Place
    ) -> Mapping[str, Array] | None:
        """What the denoiser adds for some `rows` of the batch, by the names of its inputs. None if nothing changed.

        Args:
            inputs: the denoiser's inputs for these rows, with the latents alone.
            rows: the rows' indices in the batch.
            place: which part of the image the latents are.
        """
        active = [
            (net, scale, guided)
            for net, scale in zip(self._nets, self._scales, strict=True)
            if scale and len(guided := np.flatnonzero(rows >= net.first))
        ]
        if not active:
            return self._nothing()
        self._is_zero = False
        for number, (net, scale, guided) in enumerate(active):
            own = {name: array if array.ndim == 0 else array[guided] for name, array in inputs.items()}
            outputs = net(scale, own, rows[guided], pixels_of(place, self._factor))
            if self._denoiser is not None:
                named = zip(self._sums, net.outputs, strict=True)
                given = {name: outputs[output] for name, output in named if output in outputs}
                net.deliver(self._denoiser, [*self._sums])
                return given
            self._add([outputs[output] for output in net.outputs], guided, first=number == 0)
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


def pixels_of(place: Place, factor: int) -> Place:
    """The same place in the image."""

    def scaled(side: slice) -> slice:
        return side if side == slice(None) else slice(side.start * factor, side.stop * factor)

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
    run: Bound,
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
        run: the denoiser's buffers.
        shapes: the shapes of the denoiser's inputs, by name.
        factor: how many pixels one latent covers, along each side.
    """
    if not request.denoiser_inputs.residuals:
        yield None
        return
    unconditional = conditioning.batch - len(conditioning.image_indices)
    with ExitStack() as stack:
        nets = []
        for spec, control in components.controls_of(request):
            if not isinstance(spec, ControlNetSpec):
                continue
            maps = control_maps(control, request, canvases)
            per_image = np.stack([_unit(one) for one in maps for _ in range(request.num_images_per_prompt)])
            images = conditioning.repeat_for_batch(per_image, zero_unconditional=False)
            component = components.controlnet(spec)
            first = unconditional if control.prompt_only else 0
            guided = min(shapes[denoiser.sample][0], conditioning.batch - first)
            own = _shapes(component, spec, denoiser, shapes, rows=guided, factor=factor)
            buffers = stack.enter_context(component.bound(own, tuple(component.outputs)))
            stack.callback(buffers.write_here)
            nets.append(_Net(component, buffers, spec, control, images, first))
        added = {name: shape for name, shape in shapes.items() if CONTROLLED_GRAPH.inputs.has(name)}
        yield Controls(
            nets,
            shapes=added,
            factor=factor,
            evaluations=plan.num_evaluations,
            denoiser=run,
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
    own = level_sizes(config, size)
    # The first convolution, then each level's layers, and what makes the next level's size. The last is the middle.
    sizes = [own[0]]
    for count, current, following in zip(layers, own, [*own[1:], own[-1]], strict=True):
        sizes += [*[current] * count, following]
    names = [name for name in inputs if CONTROLLED_GRAPH.inputs.has(name)]
    return {name: (rows, inputs[name].shape[1], *each) for name, each in zip(names, sizes, strict=True)}
