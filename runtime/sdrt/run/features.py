"""The T2I-Adapters of a pass. Each sees its control image once, and the denoiser adds what it gives in every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdrt.families import T2IAdapterSpec
from sdrt.images.reading import resized
from sdrt.model_folder.graph_kind import FEATURED_GRAPH
from sdrt.request.controls import Control
from sdrt.request.fitted import FittedRequest
from sdrt.run.controls import control_maps, pixels_of
from sdrt.run.image_prompts import level_sizes
from sdrt.schedulers import Plan
from sdrt.tasks.windows import Place

if TYPE_CHECKING:
    from sdrt.onnx.session import Component
    from sdrt.run.components import LoadedComponents
    from sdrt.run.conditioning import Conditioning
    from sdrt.tasks.inpainting import Canvas

__all__ = ["Features", "feature_shapes"]

Array = NDArray[np.float32]
Image8 = NDArray[np.uint8]
# The features of 512x512 pixels take about 10 MB. With more tiles than this, each is computed anew in every step.
_MOST_KEPT = 16


class _Adapter:
    """One T2I-Adapter.

    Args:
        component: the graph.
        spec: what it takes.
        control: what it does.
        maps: what it sees of each prompt's control image, [H, W, 3] of 8 bits.
        first: the first row of the batch that it guides. It guides all that follow.
        factor: how many pixels one latent covers, along each side.
    """

    def __init__(
        self,
        component: Component,
        spec: T2IAdapterSpec,
        control: Control,
        maps: Sequence[Image8],
        first: int,
        factor: int,
    ) -> None:
        self.control, self.first = control, first
        self._component, self._spec, self._maps, self._factor = component, spec, maps, factor
        # What it gave, by the prompt and the part of its image.
        self._made: dict[tuple[int, str], list[Array]] = {}

    def __call__(self, prompt: int, place: Place) -> list[Array]:
        """The features [channels, h, w] of a prompt's image at a `place`, weighted as the mode says."""
        key = (prompt, str(place))
        if key not in self._made:
            if len(self._made) >= max(len(self._maps), _MOST_KEPT):
                self._made.clear()
            self._made[key] = self._computed(self._maps[prompt][pixels_of(place, self._factor)[1:]])
        return self._made[key]

    def _computed(self, seen: Image8) -> list[Array]:
        component, name = self._component, self._spec.image
        given, made = self._input(seen), []
        outputs = tuple(component.outputs)
        with component.bound({name: given.shape}, outputs) as run:
            run.set(name, given)
            found = run()
            weights = self.control.mode.feature_weights(len(outputs))
            for output, weight in zip(outputs, weights, strict=True):
                component.check_finite(output, found[output])
                # The next run overwrites the buffers.
                made.append(found[output][0] * np.float32(weight))
        return made

    def _input(self, seen: Image8) -> Array:
        """A part of the control image as the graph takes it: [1, channels, H, W] from 0 to 1.

        The graph takes multiples of a number of pixels only. At other sizes, the image is enlarged a little.
        """
        step = self._spec.factor
        scaled = resized(seen, *(-(-side // step) * step for side in seen.shape[:2]))
        if self._component.inputs[self._spec.image].shape[1] == 1:
            from PIL import Image

            scaled = np.asarray(Image.fromarray(scaled).convert("L"))[..., np.newaxis]
        planes = scaled.astype(np.float32).transpose(2, 0, 1)[np.newaxis] / np.float32(255)
        return np.ascontiguousarray(planes)


class Features:
    """The T2I-Adapters of one pass.

    Args:
        adapters: the adapters.
        prompts: for each row of the batch, the index of its prompt.
        shapes: the shapes of the denoiser's further inputs for one call, by name.
        evaluations: how many evaluations the pass has.
    """

    def __init__(
        self,
        adapters: Sequence[_Adapter],
        prompts: NDArray[np.intp],
        *,
        shapes: Mapping[str, tuple[int, ...]],
        evaluations: int,
    ) -> None:
        self._adapters, self._prompts, self._evaluations = adapters, prompts, evaluations
        self._sums = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        # What the denoiser's buffers hold: with which scales, for which rows, and where.
        self._given: tuple[Any, ...] | None = None
        self._scales: list[float] = []
        self.begin(0)

    @classmethod
    def of(
        cls,
        components: LoadedComponents,
        request: FittedRequest,
        plan: Plan,
        conditioning: Conditioning,
        canvases: Sequence[Canvas],
        *,
        shapes: Mapping[str, tuple[int, ...]],
        factor: int,
    ) -> Features | None:
        """Those of a request. None without any. See `bound_controls`."""
        if not request.denoiser_inputs.features:
            return None
        images = np.arange(request.num_images)
        adapters = [
            _Adapter(
                components.controlnet(spec),
                spec,
                control,
                control_maps(control, request, canvases),
                conditioning.batch - len(conditioning.image_indices) if control.prompt_only else 0,
                factor,
            )
            for spec, control in components.controls_of(request)
            if isinstance(spec, T2IAdapterSpec)
        ]
        return cls(
            adapters,
            conditioning.repeat_for_batch(images, zero_unconditional=False) // request.num_images_per_prompt,
            shapes={name: shape for name, shape in shapes.items() if FEATURED_GRAPH.inputs.has(name)},
            evaluations=plan.num_evaluations,
        )

    def begin(self, evaluation: int) -> bool:
        """Choose the scales of an evaluation, counted from 0. Returns whether they are others than before."""
        before = self._scales
        self._scales = [one.control.scale_at(evaluation, self._evaluations) for one in self._adapters]
        return self._scales != before

    def __call__(
        self, inputs: Mapping[str, NDArray[Any]], rows: NDArray[np.intp], place: Place
    ) -> Mapping[str, Array] | None:
        """What the denoiser adds for some `rows` of the batch, by the names of its inputs. None if nothing changed.

        `place` says which part of the image the latents are.
        """
        if self._given == (wanted := (self._scales, rows.tobytes(), place)):
            return None
        self._given = wanted
        for total in self._sums.values():
            total.fill(0)
        for adapter, scale in zip(self._adapters, self._scales, strict=True):
            for index, row in enumerate(rows):
                if scale and row >= adapter.first:
                    self._add(adapter(self._prompts[row], place), index, np.float32(scale))
        return self._sums

    def _add(self, features: Sequence[Array], index: int, scale: np.float32) -> None:
        # Not every adapter reaches the middle, which is the last input.
        for total, feature in zip(self._sums.values(), features, strict=False):
            # Some U-Nets round odd sizes down, and adapters round them up.
            _, height, width = total[index].shape
            total[index] += scale * feature[:, :height, :width]


def feature_shapes(
    config: Mapping[str, Any], inputs: Mapping[str, Any], rows: int, size: Sequence[int]
) -> dict[str, tuple[int, ...]]:
    """The shapes of a denoiser's inputs for what T2I-Adapters give. See `residual_shapes`."""
    levels = level_sizes(config, size)
    # Blocks without attention add it after their downsampling. The last one has none.
    sizes = [
        own if kind.startswith("CrossAttn") else following
        for kind, own, following in zip(
            config["down_block_types"], levels, [*levels[1:], levels[-1]], strict=True
        )
    ]
    names = [name for name in inputs if FEATURED_GRAPH.inputs.has(name)]
    every = zip(names, [*sizes, levels[-1]], strict=False)
    return {name: (rows, inputs[name].shape[1], *each) for name, each in every}
