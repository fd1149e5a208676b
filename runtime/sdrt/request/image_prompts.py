"""Fits the settings of image prompts to a model: images, a scale and masks for each of its IP-Adapters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdrt.common.messages import refused
from sdrt.errors import RequestError
from sdrt.images.given_arrays import as_array
from sdrt.images.reading import read_images, read_masks
from sdrt.model_folder.graph_kind import ImageInput
from sdrt.request.block_scales import BlockScales
from sdrt.request.checks import both_given, tensor
from sdrt.request.image_prompt_settings import MAX_IMAGE_PROMPTS

if TYPE_CHECKING:
    from sdrt.families import IpAdapterSpec
    from sdrt.families.capabilities import Capabilities
    from sdrt.request.derived import DerivedSettings

__all__ = [
    "ImagePrompt",
    "check_image_prompts",
    "fit_image_prompts",
    "flat_scales",
    "image_inputs",
    "settings_of_image_prompts",
]

_IMAGE, _MASKS, _SCALE = "ip_adapter_image", "ip_adapter_masks", "ip_adapter_scale"
_EMBEDS = "ip_adapter_image_embeds"
_WHITE = "white where the image is seen"
Image8 = NDArray[np.uint8]
Array = NDArray[np.float32]
Scale = float | BlockScales


@dataclass(frozen=True, kw_only=True, eq=False)
class ImagePrompt:
    """What one IP-Adapter of a run sees.

    Attributes:
        spec: the adapter.
        images: its images [H, W, 3] of 8 bits, which may differ in size. Empty with `embeds`.
        scales: how much they count: one scale, or with masks one for each image.
        masks: where each of them is seen, [H, W] of 8 bits. Empty for the whole image.
        embeds: what the encoder sees in them, [1 or 2, images, …]. Of two, the first is what it sees in nothing.
    """

    spec: IpAdapterSpec
    images: tuple[Image8, ...]
    scales: tuple[Scale, ...]
    masks: tuple[Image8, ...] = ()
    embeds: Array | None = None


def check_image_prompts(request: DerivedSettings) -> None:
    """Read the image prompts and masks of a `request` under construction.

    Raises:
        RequestError: an image cannot be read, or there are not as many masks as images.
    """
    if request.ip_adapter_image is not None and request.ip_adapter_image_embeds is not None:
        raise both_given(_IMAGE, _EMBEDS)
    if request.ip_adapter_image_embeds is not None:
        images: tuple[Any, ...] = _checked_embeds(request.ip_adapter_image_embeds)
        object.__setattr__(request, _EMBEDS, images)
        images = tuple((None,) * one.shape[1] for one in images)
    elif request.ip_adapter_image is not None:
        images = _nested(_IMAGE, request.ip_adapter_image, read_images)
        object.__setattr__(request, _IMAGE, images)
    else:
        return
    if request.ip_adapter_masks is None:
        return
    masks = _nested(_MASKS, request.ip_adapter_masks, partial(read_masks, white=_WHITE))
    flat = sum(map(_count, masks)) == sum(map(_count, images)) and (len(masks) == 1 or len(images) == 1)
    if list(map(_count, masks)) != list(map(_count, images)) and not flat:
        raise refused(_MASKS, f"has {_words(masks, 'mask')}", f"{_words(images, 'mask')}, one for each image")
    object.__setattr__(request, _MASKS, masks)


def _checked_embeds(given: Any) -> tuple[Array, ...]:
    """One array for each adapter. Raises `RequestError`."""
    listed = given if isinstance(given, (list, tuple)) else [given]
    made = []
    for one in listed:
        array = as_array(_EMBEDS, one)
        embeds = tensor(_EMBEDS, array, rank=4 if array.ndim == 4 else 3)
        assert embeds is not None
        if len(embeds) not in (1, 2) or embeds.shape[1] > MAX_IMAGE_PROMPTS:
            raise refused(_EMBEDS, f"has shape {list(embeds.shape)}", "[1 or 2, images, …]")
        made.append(embeds)
    if not made:
        raise refused(_EMBEDS, "is an empty list", "one array for each IP-Adapter")
    return tuple(made)


def _nested(name: str, given: Any, read: Callable[[str, Any], tuple[Image8, ...]]) -> tuple[Any, ...]:
    """A tuple of images, and of tuples of images where the caller gave a list inside a list."""
    if not isinstance(given, (list, tuple)):
        return read(name, given)
    made: list[Any] = []
    for one in given:
        inner = isinstance(one, (list, tuple))
        images = [image for part in (one if inner else [one]) for image in read(name, part)]
        made += [tuple(images)] if inner else images
    if not made or () in [one for one in made if isinstance(one, tuple)]:
        raise refused(name, "is an empty list", "one or several images")
    if sum(map(_count, made)) > MAX_IMAGE_PROMPTS:
        raise refused(name, f"has {sum(map(_count, made))} images", f"at most {MAX_IMAGE_PROMPTS}")
    return tuple(made)


def _count(one: Any) -> int:
    return len(one) if isinstance(one, tuple) else 1


def _words(nested: Sequence[Any], noun: str) -> str:
    counts = [_count(one) for one in nested]
    total = sum(counts)
    shown = f" ({' + '.join(map(str, counts))})" if any(isinstance(one, tuple) for one in nested) else ""
    return f"{total} {noun}{'s' * (total != 1)}{shown}"


def fit_image_prompts(request: DerivedSettings, capabilities: Capabilities) -> tuple[ImagePrompt, ...]:
    """What each IP-Adapter of the model sees in a request.

    Raises:
        RequestError: the model has no IP-Adapter, or the settings do not have one value for each.
    """
    given = request.ip_adapter_image_embeds
    name = _IMAGE if given is None else _EMBEDS
    if request.ip_adapter_image is None and given is None:
        return ()
    specs = capabilities.ip_adapters
    if not specs:
        raise RequestError.advised(
            f"{name} has no effect, because this model has no IP-Adapter",
            "add one with load_ip_adapter(…) (--ip-adapter FILE)",
            argument=name,
        )
    images = _of_each(_IMAGE, request.ip_adapter_image, len(specs)) if given is None else [()] * len(specs)
    embeds = [None] * len(specs) if given is None else _embeds_of(specs, given)
    masks = (
        [()] * len(specs)
        if request.ip_adapter_masks is None
        else _of_each(_MASKS, request.ip_adapter_masks, len(specs))
    )
    scales = scales_of(request.ip_adapter_scale, [len(one) or 1 for one in masks])
    for scale in (one for each in scales for one in each):
        if isinstance(scale, BlockScales):
            scale.check_fits(_SCALE, capabilities.cross_attentions)
    return tuple(
        ImagePrompt(spec=spec, images=own, scales=each, masks=areas, embeds=seen)
        for spec, own, each, areas, seen in zip(specs, images, scales, masks, embeds, strict=True)
    )


def _embeds_of(specs: Sequence[IpAdapterSpec], given: Sequence[Array]) -> list[Array]:
    """What each adapter reads, if it has the shape that the adapter takes. Raises `RequestError`."""
    if len(given) != len(specs):
        raise refused(_EMBEDS, f"has {len(given)} arrays", f"{len(specs)}, one for each IP-Adapter")
    for spec, one in zip(specs, given, strict=True):
        rank = 4 if spec.reads_patches else 3
        if one.ndim != rank or one.shape[-1] != spec.embeds_width:
            patches = "patches, " if spec.reads_patches else ""
            fits = f"[1 or 2, images, {patches}{spec.embeds_width}]"
            raise refused(_EMBEDS, f"has shape {list(one.shape)}", fits)
    return list(given)


def settings_of_image_prompts(prompts: Sequence[ImagePrompt]) -> dict[str, tuple[Scale, ...]]:
    """The settings that `fit_image_prompts` has completed, by name. Empty without image prompts."""
    if not prompts:
        return {}
    if all(scale == one.scales[0] for one in prompts for scale in one.scales):
        return {_SCALE: tuple(one.scales[0] for one in prompts)}
    return {_SCALE: tuple(scale for one in prompts for scale in one.scales)}


def _of_each(name: str, given: Sequence[Any], count: int) -> list[tuple[Image8, ...]]:
    """The images of each of `count` adapters. With one adapter, a flat list has all of its images."""
    if count == 1 and not any(isinstance(one, tuple) for one in given):
        return [tuple(given)]
    if len(given) != count:
        entries = f"{len(given)} entr{'ies' if len(given) != 1 else 'y'}"
        raise refused(
            name,
            f"has {entries}, and the model has {count} IP-Adapter{'s' * (count != 1)}",
            "one image, or one list of images, for each IP-Adapter",
        )
    return [one if isinstance(one, tuple) else (one,) for one in given]


def scales_of(given: Any, counts: Sequence[int]) -> list[tuple[Scale, ...]]:
    """The scales of each adapter, one for each of its inputs, of which `counts` says how many it has.

    One number is for all, and as many numbers as adapters are one for each. Otherwise there is one for each input.

    Raises:
        RequestError: there is another number of scales.
    """
    is_one = isinstance(given, (int, float, BlockScales))
    values: list[Any] = [1.0] if given is None else [given] if is_one else list(given)
    if len(values) in (1, len(counts)):
        each = values * (len(counts) if len(values) == 1 else 1)
        return [(scale,) * count for scale, count in zip(each, counts, strict=True)]
    if len(values) != sum(counts):
        adapters = f"{len(counts)} IP-Adapter{'s' * (len(counts) != 1)}"
        raise refused(
            _SCALE,
            f"has {len(values)} numbers for {adapters}",
            "one, one for each, or with masks one for each image",
        )
    rest = iter(values)
    return [tuple(next(rest) for _ in range(count)) for count in counts]


def flat_scales(scales: Sequence[Scale | tuple[float, ...]], images: Sequence[Any]) -> tuple[Scale, ...]:
    """Scales as `ip_adapter_scale` has them, of numbers and, as in diffusers, lists with one for each masked image.

    `images` are those of the request, a tuple for an adapter with several.
    """
    if not any(isinstance(one, tuple) for one in scales):
        return tuple(one for one in scales if not isinstance(one, tuple))
    own = [images] if len(scales) == 1 and not any(isinstance(one, tuple) for one in images) else images
    counts = [_count(one) for one in own]
    if len(counts) != len(scales):
        counts = [1] * len(scales)
    each = [
        one if isinstance(one, tuple) else (one,) * count for one, count in zip(scales, counts, strict=True)
    ]
    return tuple(scale for part in each for scale in part)


def image_inputs(prompts: Sequence[ImagePrompt]) -> tuple[ImageInput, ...]:
    """The further inputs of the denoiser: one for each adapter, or with masks one for each image."""
    return tuple(
        ImageInput(adapter=number, width=one.spec.width, masked=bool(one.masks), file=one.spec.file)
        for number, one in enumerate(prompts)
        for _ in one.masks or (None,)
    )
