"""The image prompts of a pass: what CLIP sees in them, as tokens for the denoiser, and where they are seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdrt.families.cross_attentions import cross_attentions
from sdrt.images.reading import resized
from sdrt.request.block_scales import BlockScales
from sdrt.request.fitted import FittedRequest
from sdrt.request.image_prompts import ImagePrompt
from sdrt.tasks.prompt_masks import level_mask

if TYPE_CHECKING:
    from sdrt.run.components import LoadedComponents
    from sdrt.run.conditioning import Conditioning
    from sdrt.tasks.inpainting import Canvas
    from sdrt.tasks.windows import Place

__all__ = ["SeenImages", "image_tokens", "level_sizes"]

Array = NDArray[np.float32]
Image8 = NDArray[np.uint8]


def image_tokens(
    components: LoadedComponents, request: FittedRequest, conditioning: Conditioning
) -> dict[str, Array]:
    """The tokens [batch, length, width] of every image input, by the names of the denoiser's inputs.

    As in diffusers, rows without the prompt do not see the images: they have the tokens of nothing.
    """
    # All images first, because low_vram keeps only one component in memory.
    seen = [_seen(components, prompt) for prompt in request.image_prompts]
    first = len(conditioning.unconditional) * conditioning.repeats
    sees = np.zeros((conditioning.batch, 1, 1), bool)
    sees[first : first + conditioning.num_texts] = True
    made: dict[str, Array] = {}
    for prompt, own in zip(request.image_prompts, seen, strict=True):
        projection = components.image_projection(prompt.spec)
        images, nothing = (projection(one) for one in own)
        # Without masks, the images of an adapter are seen together.
        for part in range(len(images)) if prompt.masks else [slice(None)]:
            tokens, none = (one[part].reshape(1, -1, prompt.spec.width) for one in (images, nothing))
            made[f"image_tokens_{len(made)}"] = np.where(sees, tokens, none)
    return made


def _seen(components: LoadedComponents, prompt: ImagePrompt) -> tuple[Array, Array]:
    """What an adapter reads of its images, and of nothing, each [images, …]."""
    spec, given = prompt.spec, prompt.embeds
    if given is not None and len(given) == 2:
        return given[1], given[0]
    if given is not None and not spec.reads_patches:
        return given[0], np.zeros_like(given[0])
    encoder = components.image_encoder
    if given is not None:
        return given[0], np.repeat(encoder.of_zeros(), len(given[0]), axis=0)
    seen = np.concatenate([encoder(image, patches=spec.reads_patches) for image in prompt.images])
    if not spec.reads_patches:
        return seen, np.zeros_like(seen)
    # As in diffusers, nothing is what the encoder sees in zeros, which are no image in black.
    return seen, np.repeat(encoder.of_zeros(), len(seen), axis=0)


class SeenImages:
    """How much each image is seen, and where: a mask for every level of the denoiser, for one row or each of the batch.

    With `padding_mask_crop`, the masks are cut as the image is. `scales` are those [layers] of every image input, by
    the names of the denoiser's inputs.

    Args:
        request: the request.
        conditioning: the rows of the batch.
        canvases: for each image, the image that the user gave and its mask; empty without a mask.
        inputs: the specs of the denoiser's inputs, by name, which say at which levels it sees images.
        factor: how many pixels one latent covers, along each side.
        config: the denoiser's config.
    """

    @classmethod
    def of(cls, request: FittedRequest, *where: Any, **how: Any) -> SeenImages | None:
        """Those of a request. None without any."""
        return cls(request, *where, **how) if request.image_prompts else None

    def __init__(
        self,
        request: FittedRequest,
        conditioning: Conditioning,
        canvases: Sequence[Canvas],
        inputs: Mapping[str, Any],
        *,
        factor: int,
        config: Mapping[str, Any],
    ) -> None:
        self._factor, self._config, self._inputs = factor, config, inputs
        self.scales = _scales(request, inputs, config)
        self._masks: dict[int, list[Image8]] = {}
        number = 0
        for prompt in request.image_prompts:
            for mask in prompt.masks:
                self._masks[number] = _whole(mask, request, canvases)
                number += 1
            number += not prompt.masks
        repeats = request.num_images_per_prompt
        cuts = bool(canvases) and request.padding_mask_crop is not None
        # For each row of the batch, the prompt whose image it makes. One row does for all if their masks are the same.
        images = np.arange(request.num_images, dtype=np.float32)
        rows = conditioning.repeat_for_batch(images, zero_unconditional=False).astype(np.intp)
        self._prompt_of_row = rows // repeats if cuts else np.zeros(1, np.intp)
        self._made: dict[tuple[Any, ...], dict[str, Array]] = {}

    def masks(self, place: Place, size: Sequence[int]) -> Mapping[str, Array]:
        """The masks [1 or batch, pixels, 1] at one place of the latents, of this `size` [h, w], by name."""
        _, *sides = place
        key = tuple((side.start, side.stop) for side in sides)
        if key not in self._made:
            self._made[key] = {
                name: np.concatenate(
                    [
                        level_mask(self._masks[number][prompt][self._pixels(sides)], *each)
                        for prompt in self._prompt_of_row
                    ]
                )
                for name, number, each in self._levels(size)
            }
        return self._made[key]

    def shapes(self, rows: int, size: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """The shapes of the scales and masks of a call with `rows` rows, for latents of this `size`, by name."""
        length = 1 if len(self._prompt_of_row) == 1 else rows
        masks = {name: (length, height * width, 1) for name, _, (height, width) in self._levels(size)}
        return {**{name: array.shape for name, array in self.scales.items()}, **masks}

    def _levels(self, size: Sequence[int]) -> Iterator[tuple[str, int, tuple[int, int]]]:
        """For each mask of the denoiser: its name, the number of its image, and height and width of its level."""
        for number in self._masks:
            for level, each in enumerate(level_sizes(self._config, size)):
                name = f"image_mask_{number}_{level}"
                if name in self._inputs:
                    yield name, number, each

    def _pixels(self, sides: Sequence[slice]) -> tuple[slice, ...]:
        whole = slice(None)
        return tuple(
            whole if side == whole else slice(side.start * self._factor, side.stop * self._factor)
            for side in sides
        )


def _scales(request: FittedRequest, inputs: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Array]:
    """The scales [layers] of every image input, by the names of the denoiser's inputs."""
    made: dict[str, Array] = {}
    for prompt in request.image_prompts:
        for scale in prompt.scales:
            name = f"image_scales_{len(made)}"
            made[name] = np.full(inputs[name].shape, _of_layers(scale, config), np.float32)
    return made


def _of_layers(scale: float | BlockScales, config: Mapping[str, Any]) -> float | list[float]:
    """One scale for all layers of a denoiser, or one for each."""
    return scale.of_layers(cross_attentions(config)) if isinstance(scale, BlockScales) else scale


def _whole(mask: Image8, request: FittedRequest, canvases: Sequence[Canvas]) -> list[Image8]:
    """A mask as large as the image, for each prompt if they differ."""
    if not canvases or request.padding_mask_crop is None:
        return [resized(mask, *request.size)]
    firsts = range(0, request.num_images, request.num_images_per_prompt)
    return [resized(canvases[index].cut(mask), *request.size) for index in firsts]


def level_sizes(config: Mapping[str, Any], size: Sequence[int]) -> list[tuple[int, int]]:
    """Height and width of a denoiser's levels, for latents of this `size`. Odd sizes are rounded as in the config."""
    # Odd sizes are rounded up, or down where the downsampling has no padding.
    up, (height, width) = config.get("downsample_padding", 1), size
    sizes = [(height, width)]
    for _ in config["block_out_channels"][1:]:
        height, width = (height + up) // 2, (width + up) // 2
        sizes.append((height, width))
    return sizes
