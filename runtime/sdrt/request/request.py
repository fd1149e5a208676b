"""What is asked for: one frozen value, checked before any work is done."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.common.messages import brief
from sdrt.common.rng import MAX_SEED
from sdrt.errors import RequestError
from sdrt.families.capabilities import Capabilities
from sdrt.images.arrays import to_bytes
from sdrt.images.reading import checked_count, enlarged_latents, read_masks, read_pictures, resized
from sdrt.request.checks import (
    MAX_PROMPT_LENGTH,
    as_given,
    check_shape,
    check_text,
    integer,
    numbers,
    real,
    tensor,
)
from sdrt.tasks.inpainting import Canvas, crop_box
from sdrt.tasks.outpainting import Growth, grown, parse_growth, passes
from sdrt.tasks.windows import Windows
from sdrt.text.syntaxes import SYNTAXES

__all__ = [
    "DEFAULT_STRENGTH",
    "MAX_PICTURES",
    "MAX_PROMPT_LENGTH",
    "MAX_SEED",
    "MAX_SIZE",
    "MAX_STEPS",
    "OUTPUT_TYPES",
    "PROMPT_SYNTAXES",
    "Request",
]

MAX_STEPS = 1000
DEFAULT_STRENGTH = 0.8
DEFAULT_IMAGE_GUIDANCE = 1.5
DEFAULT_NOISE_LEVEL = 20
MAX_SIZE = 2048
"""Pixels a side; a call may raise it with `max_size`. Attention's time grows with the fourth power."""
MAX_TILED_SIZE = 8192
"""The same with a `tile_size`: time grows with the area."""
MAX_PICTURES = 1024
OUTPUT_TYPES = ("pil", "np", "latent")
HIRES_UPSCALERS = ("latent", "lanczos")
PROMPT_SYNTAXES = tuple(SYNTAXES)

WITHOUT_HIRES: Mapping[str, Any] = {
    "hires_scale": None,
    "hires_steps": None,
    "hires_strength": 0.7,
    "hires_upscaler": "latent",
}
"""What a request for one of the two pictures of `hires_scale` says of it."""
_ONLY_WITH: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("hires_scale",): ("hires_strength", "hires_steps", "hires_upscaler"),
    ("mask_image", "outpaint"): ("mask_blur", "composite"),
    ("tile_size",): ("tile_overlap",),
}

Array = NDArray[np.float32]
Picture = NDArray[np.uint8]
_SEED_OF_PASS = 1_000_003
_CHOICES = {
    "output_type": OUTPUT_TYPES,
    "prompt_syntax": PROMPT_SYNTAXES,
    "hires_upscaler": HIRES_UPSCALERS,
}
_OF_IMAGES = (
    "strength",
    "mask_image",
    "padding_mask_crop",
    "outpaint",
    "image_guidance_scale",
    "noise_level",
)


@dataclass(frozen=True, eq=False)
class Latents:
    """Latents [prompts, C, h, w] in the place of pictures."""

    array: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """Pictures to make; names and defaults are diffusers'. Raises `RequestError` on construction.

    `guidance_scale` is the model's where it is None: 7.5, unless its folder says otherwise.

    `prompt_syntax` is A1111's grammar, or "compel" (`word++`, `(two words)0.8`, `("a", "b").blend(1, 0.5)`, `.and()`),
    or "plain", in which every character is itself and a text is cut after one chunk. Compel's weights below 1 are those
    of its `DownweightMode.REMOVE`, as text encoders take no mask here.

    `latents` [pictures, C, H/8, W/8] is unit noise; `prompt_embeds` [prompts, length, width]. Picture `i` has
    seed `seed + i`; a missing seed is drawn here, so `seed` is always a number afterwards.

    With `image` a run begins from it (SDEdit, Meng et al. 2021, arXiv:2108.01073): a path, a PIL picture, an array,
    one for each prompt, or latents. `strength` is the share of the steps that are taken, 0.8 where it is None; the
    size is the picture's, rounded down to what the model takes, unless `height` and `width` say otherwise.

    With `mask_image`, white where to repaint, the rest of the picture stays, bit for bit: what was made fades in over
    `mask_blur` pixels inside of the mask. `strength` is then 1 where it is None. `padding_mask_crop` works on the
    mask's surroundings alone, so many pixels of them, at the size given or the model's own. `composite=False` gives
    what was made, all of it.

    With `outpaint` the picture grows: pixels of sides, `{"left": 64, "top": 32}` or "left=64,top=32", or the size to
    grow to and where the picture lies on it, "768x512@left". It stays bit for bit; what is new fades in from its edge.
    Growth by more than half of what there is takes several passes, each of all steps.

    A model made to follow instructions (InstructPix2Pix) takes `image` and keeps to it by `image_guidance_scale`, 1.5
    where it is None; a model made to upscale takes the small picture as `image`, with noise of `noise_level` on it, 20
    where it is None. Neither has a strength.

    `guidance_rescale` takes back what guidance adds to the spread of a picture (Lin et al. 2023, arXiv:2305.08891,
    section 3.4). `timesteps`, or `sigmas` with the final one, stand for a number of steps and a spacing.

    With `hires_scale` a picture is made at its size, enlarged so many times and denoised again: of `hires_steps` the
    share `hires_strength` is taken. Latents are enlarged, or with `hires_upscaler` "lanczos" the picture is.

    With `tile_size`, in pixels, the U-Net sees the picture in windows of that size, which share `tile_overlap` pixels,
    a quarter of it where it is None: its memory is that of a window, and its time grows with the picture's area.
    """

    prompt: str | Sequence[str] | None = None
    height: int | None = None
    width: int | None = None
    num_inference_steps: int = 50
    guidance_scale: float | None = None
    negative_prompt: str | Sequence[str] | None = None
    num_images_per_prompt: int = 1
    eta: float = 0.0
    seed: int | None = None
    latents: Array | None = None
    prompt_embeds: Array | None = None
    negative_prompt_embeds: Array | None = None
    output_type: str = "pil"
    clip_skip: int | None = None
    prompt_syntax: str = "a1111"
    image: Any = None
    strength: float | None = None
    mask_image: Any = None
    mask_blur: float = 4.0
    padding_mask_crop: int | None = None
    composite: bool = True
    outpaint: Any = None
    image_guidance_scale: float | None = None
    noise_level: int | None = None
    guidance_rescale: float = 0.0
    timesteps: Sequence[int] | None = None
    sigmas: Sequence[float] | None = None
    hires_scale: float | None = None
    hires_strength: float = 0.7
    hires_steps: int | None = None
    hires_upscaler: str = "latent"
    tile_size: int | None = None
    tile_overlap: int | None = None
    max_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("latents", "prompt_embeds", "negative_prompt_embeds"):
            self._set(name, tensor(name, getattr(self, name), rank=4 if name == "latents" else 3))
        self._check_prompts()
        self._check_levels()
        self._set(
            "num_inference_steps", integer("num_inference_steps", self.num_inference_steps, 1, MAX_STEPS)
        )
        most = max(1, MAX_PICTURES // max(1, self.num_prompts))
        self._set(
            "num_images_per_prompt", integer("num_images_per_prompt", self.num_images_per_prompt, 1, most)
        )
        if self.guidance_scale is not None:
            self._set("guidance_scale", real("guidance_scale", self.guidance_scale, -1e4, 1e4))
        self._set("guidance_rescale", as_given("guidance_rescale", self.guidance_rescale, 0.0, 1.0))
        self._set("eta", as_given("eta", self.eta, 0.0, 1.0))
        if self.image_guidance_scale is not None:
            scale = real("image_guidance_scale", self.image_guidance_scale, -1e4, 1e4)
            self._set("image_guidance_scale", scale)
        if self.noise_level is not None:
            self._set("noise_level", integer("noise_level", self.noise_level, 0, 10_000))
        self._check_image()
        self._check_unused()
        self._check_hires()
        self._check_sizes()
        if self.clip_skip is not None:
            self._set("clip_skip", integer("clip_skip", self.clip_skip, 0, 1000))
        for name, values in _CHOICES.items():
            value = getattr(self, name)
            if not isinstance(value, str) or value not in values:
                raise RequestError(f"{name} is {brief(value)}: expected one of {', '.join(values)}")
        self._check_seed()

    @property
    def num_steps(self) -> int:
        """Steps that are taken."""
        return self.num_inference_steps - self.num_skipped_steps

    @property
    def num_skipped_steps(self) -> int:
        """Steps that an image prompt stands for: diffusers' rule."""
        if self.image is None:
            return 0
        return self.num_inference_steps - _share(self._usual_strength, self.num_inference_steps)

    @property
    def num_hires_steps(self) -> int:
        """Steps that are taken of the enlarged picture."""
        return _share(self.hires_strength, self.hires_steps or self.num_inference_steps)

    @property
    def image_is_latents(self) -> bool:
        """Whether `image` holds latents [C, h, w] in place of pictures."""
        return isinstance(self.image, Latents)

    @property
    def num_prompts(self) -> int:
        """How many prompts, given as text or as embeddings."""
        return len(self.prompts) if self.prompt_embeds is None else len(self.prompt_embeds)

    @property
    def num_pictures(self) -> int:
        """How many pictures come out."""
        return self.num_prompts * self.num_images_per_prompt

    @property
    def guided(self) -> bool:
        """Whether the unconditional half is computed: diffusers' rule."""
        of_picture = self.image_guidance_scale
        assert self.guidance_scale is not None  # filled in by `fit`
        return self.guidance_scale > 1.0 and (of_picture is None or of_picture >= 1.0)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each picture."""
        assert self.seed is not None  # drawn on construction
        return tuple(range(self.seed, self.seed + self.num_pictures))

    @property
    def prompts(self) -> list[str]:
        """The prompts as a list; empty when embeddings were given."""
        return _listed(self.prompt) if self.prompt is not None else []

    @property
    def negative_prompts(self) -> list[str]:
        """One negative prompt per prompt; a single text serves all of them, none is the empty text."""
        given = _listed(self.negative_prompt) if self.negative_prompt is not None else [""]
        return given * self.num_prompts if len(given) == 1 else given

    def fit(self, capabilities: Capabilities) -> Request:
        """This request with its size filled in, checked against the model. Raises `RequestError`."""
        request = self._for_kind(capabilities)
        if request.guidance_scale is None:
            request = replace(request, guidance_scale=capabilities.guidance_scale)
        height, width = request._size(capabilities)
        self._check_tiles(capabilities)
        for name, size in (("height", height), ("width", width)):
            self._check_size(name, size, capabilities)
        if self.prompt_embeds is None and not capabilities.has_text_encoder:
            raise RequestError("this model has no text encoder: give prompt_embeds instead of prompt")
        needs_text = request.guided and self.negative_prompt_embeds is None
        if needs_text and not capabilities.has_text_encoder:
            raise RequestError(
                "this model has no text encoder: give negative_prompt_embeds, or guidance_scale=1"
            )
        factor, channels = capabilities.vae_scale_factor, capabilities.latent_channels
        check_shape("latents", self.latents, (self.num_pictures, channels, height // factor, width // factor))
        self._check_embeds(capabilities)
        if self.hires_scale is not None:
            for name, size in zip(
                ("height", "width"), self.hires_size(height, width, capabilities), strict=True
            ):
                self._check_size(f"{name} with hires_scale", size, capabilities)
        # Every pass of an outpainting has a size of its own.
        return request if self.outpaint is not None else replace(request, height=height, width=width)

    def _for_kind(self, capabilities: Capabilities) -> Request:
        """This request with the defaults of a kind of model; raises `RequestError` where it is not for it."""
        kind = capabilities.kind
        for name in kind.refuses:
            # A request that was fitted before has the strength of a run from noise.
            if getattr(self, name) is not None and (name, self.strength) != ("strength", 1.0):
                raise RequestError(
                    f"{name} means nothing to a model for {kind.name}, as this one is: leave it out"
                )
        given = {name for name in kind.needs if getattr(self, name) is not None}
        if self.outpaint is not None:
            given.add("mask_image")
        if missing := [name for name in kind.needs if name not in given]:
            raise RequestError(f"this model is made for {kind.name}: give {' and '.join(missing)}")
        if (
            self.hires_scale is not None
            and self.hires_upscaler != "latent"
            and not capabilities.has_vae_encoder
        ):
            raise _no_encoder(f"hires_upscaler {self.hires_upscaler!r}")
        if self.image is None:
            return self
        if self.image_is_latents:
            if kind.needs:
                raise RequestError(
                    f"image is latents, and this model, made for {kind.name}, needs pixels: give a picture"
                )
            check_shape("image", self.image.array, (None, capabilities.latent_channels, None, None))
        elif not kind.has_noise_level and not capabilities.has_vae_encoder:
            raise _no_encoder("an image prompt")
        if "strength" not in kind.refuses:
            self._check_strength()
            return replace(self, strength=self._usual_strength)
        if kind.has_image_guidance:
            scale = self.image_guidance_scale
            return replace(
                self, strength=1.0, image_guidance_scale=DEFAULT_IMAGE_GUIDANCE if scale is None else scale
            )
        level = (
            min(DEFAULT_NOISE_LEVEL, capabilities.most_noise)
            if self.noise_level is None
            else self.noise_level
        )
        integer("noise_level", level, 0, capabilities.most_noise)
        return replace(self, strength=1.0, noise_level=level)

    def _size(self, capabilities: Capabilities) -> tuple[int, int]:
        """Height and width of the result: what was asked for, or the picture's, or the latents', or the model's."""
        height, width = capabilities.default_height, capabilities.default_width
        if self.image is not None and self.padding_mask_crop is None:
            if self.image_is_latents:
                height, width = (size * capabilities.vae_scale_factor for size in self.image.array.shape[2:])
                if (self.height or height, self.width or width) != (height, width):
                    raise RequestError(
                        f"image has latents of {width}x{height} pixels: leave out height and width, or give those"
                    )
                return height, width
            height, width = self.image[0].shape[:2]
            if capabilities.kind.has_noise_level:
                height, width = height * capabilities.vae_scale_factor, width * capabilities.vae_scale_factor
            if self.outpaint is not None:
                width, height = self.outpaint.of(width, height)
            step = capabilities.size_step
            height, width = (max(step, side // step * step) for side in (height, width))
        elif self.latents is not None and self.height is None and self.width is None:
            height, width = (size * capabilities.vae_scale_factor for size in self.latents.shape[2:])
        return self.height or height, self.width or width

    def _check_size(self, name: str, size: int, capabilities: Capabilities) -> None:
        _check_step(name, size, capabilities)
        most = self.max_size or (MAX_SIZE if self.tile_size is None else MAX_TILED_SIZE)
        if size > most:
            reason = "" if self.tile_size else ", since time grows with its fourth power; tile_size bounds it"
            raise RequestError(
                f"{name} is {size}: expected at most {most}{reason}; allow more with max_size={size} "
                f"(--max-size {size})"
            )

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_prompts(self) -> None:
        if (self.prompt is None) == (self.prompt_embeds is None):
            given = "neither" if self.prompt is None else "both"
            raise RequestError(f"expected either prompt or prompt_embeds, got {given}")
        if self.negative_prompt is not None and self.negative_prompt_embeds is not None:
            raise RequestError("expected at most one of negative_prompt and negative_prompt_embeds, got both")
        for name in ("prompt", "negative_prompt"):
            check_text(name, getattr(self, name))
        negative = self.negative_prompt
        if negative is not None and not isinstance(negative, str) and len(negative) != self.num_prompts:
            raise RequestError(
                f"negative_prompt has {len(negative)} texts for {self.num_prompts} prompts: "
                "give one each, or one text"
            )
        if self.num_prompts > MAX_PICTURES:
            raise RequestError(
                f"there are {self.num_prompts} prompts: expected at most {MAX_PICTURES} in a call"
            )

    def _check_image(self) -> None:
        if self.image is None:
            for name in _OF_IMAGES:
                if getattr(self, name) is not None:
                    raise RequestError(
                        f"{name} is given without an image: give the image to begin from, or leave it out"
                    )
            return
        if self.latents is not None:
            raise RequestError("expected at most one of image and latents, got both")
        if latents := self._latents_given():
            for name in ("mask_image", "outpaint"):
                if getattr(self, name) is not None:
                    raise RequestError(f"{name} needs pixels, and image is latents: give a picture")
            self._set("image", latents)
        else:
            pictures = read_pictures("image", self.image)
            self._set("image", checked_count("image", pictures, self.num_prompts))
        self._check_mask()
        self._check_outpaint()
        if self.strength is not None:
            self._set("strength", real("strength", self.strength, 0.0, 1.0))
            self._check_strength()

    def _latents_given(self) -> Latents | None:
        """`image` as latents [N, C, h, w], which diffusers takes in its place; None where it is none."""
        if isinstance(self.image, Latents):
            return self.image
        array = self.image
        if not isinstance(array, np.ndarray) or array.ndim != 4 or array.shape[-1] == 3:
            return None
        given = tensor("image", array, rank=4)
        assert given is not None  # as it is an array
        if len(given) not in (1, self.num_prompts):
            raise RequestError(
                f"image has latents of {len(given)} pictures for {self.num_prompts} prompts: give one each, or one"
            )
        return Latents(np.broadcast_to(given, (self.num_prompts, *given.shape[1:])))

    @property
    def _usual_strength(self) -> float:
        """The strength, or what it is where none is given."""
        if self.strength is not None:
            return self.strength
        return DEFAULT_STRENGTH if self.mask_image is None and self.outpaint is None else 1.0

    def _check_unused(self) -> None:
        """Refuse what would mean nothing without another setting."""
        for wanted, names in _ONLY_WITH.items():
            if all(getattr(self, one) is None for one in wanted):
                for name in names:
                    if getattr(self, name) != getattr(Request, name):
                        raise RequestError(
                            f"{name} is given without a {' or '.join(wanted)}: give one, or leave it out"
                        )

    def _check_hires(self) -> None:
        if self.hires_scale is None:
            return
        self._set("hires_scale", real("hires_scale", self.hires_scale, 1.0, 16.0))
        self._set("hires_strength", real("hires_strength", self.hires_strength, 0.0, 1.0))
        if self.hires_steps is not None:
            self._set("hires_steps", integer("hires_steps", self.hires_steps, 1, MAX_STEPS))
        if not self.num_hires_steps:
            raise _no_steps(
                "hires_strength", self.hires_strength, self.hires_steps or self.num_inference_steps
            )
        if self.image is not None:
            raise RequestError(
                "hires_scale is for pictures that are made from text: with an image, give the height and width to make"
            )

    def _check_strength(self) -> None:
        if self.num_skipped_steps == self.num_inference_steps:
            raise _no_steps("strength", self._usual_strength, self.num_inference_steps)

    def _check_mask(self) -> None:
        self._set("mask_blur", as_given("mask_blur", self.mask_blur, 0.0, 1000.0))
        if not isinstance(self.composite, bool):
            raise RequestError(f"composite is {brief(self.composite)}: expected True or False")
        if self.padding_mask_crop is not None:
            self._set("padding_mask_crop", integer("padding_mask_crop", self.padding_mask_crop, 0, 2**16))
            if self.mask_image is None:
                raise RequestError(
                    "padding_mask_crop is given without a mask_image: give the mask, or leave it out"
                )
        if self.mask_image is None:
            return
        masks = checked_count("mask_image", read_masks("mask_image", self.mask_image), self.num_prompts)
        (height, width), (tall, wide) = masks[0].shape, self.image[0].shape[:2]
        if (height, width) != (tall, wide):
            raise RequestError(
                f"mask_image is {width}x{height} and image {wide}x{tall} pixels: expected one size"
            )
        self._set("mask_image", masks)

    def _check_outpaint(self) -> None:
        if self.outpaint is None:
            return
        for name, usual in (("mask_image", None), ("height", None), ("width", None), ("composite", True)):
            if getattr(self, name) != usual:
                raise RequestError(f"expected at most one of outpaint and {name}, got both")
        if self.output_type == "latent":
            raise RequestError(
                "output_type is 'latent', and outpaint puts pictures together: expected 'pil' or 'np'"
            )
        height, width = self.image[0].shape[:2]
        self._set("outpaint", parse_growth(self.outpaint, width, height))

    def passes(self) -> list[Growth]:
        """The steps in which an `outpaint` is made."""
        height, width = self.image[0].shape[:2]
        return passes(self.outpaint, width, height)

    def hires_size(self, height: int, width: int, capabilities: Capabilities) -> tuple[int, int]:
        """Height and width after `hires_scale`, the nearest that the model takes."""
        assert self.hires_scale is not None
        step = capabilities.size_step
        return (
            round(height * self.hires_scale / step) * step,
            round(width * self.hires_scale / step) * step,
        )

    def enlarged(self, made: Sequence[Array], capabilities: Capabilities) -> Request:
        """The second request of `hires_scale`, from what the first made: latents [C, h, w], or [H, W, 3] in 0..1."""
        assert self.height is not None  # filled in by `fit`
        assert self.width is not None
        height, width = self.hires_size(self.height, self.width, capabilities)
        if self.hires_upscaler == "latent":
            factor = capabilities.vae_scale_factor
            image: Any = Latents(
                np.stack([enlarged_latents(one, height // factor, width // factor) for one in made])
            )
        else:
            image = [resized(to_bytes(one), height, width) for one in made]
        return replace(
            self,
            **self._prompts_of_pictures(),
            image=image,
            strength=self.hires_strength,
            num_inference_steps=self.hires_steps or self.num_inference_steps,
            height=height,
            width=width,
            latents=None,
            **WITHOUT_HIRES,
        )

    def _prompts_of_pictures(self) -> dict[str, Any]:
        """The prompts of a request in which each picture has its own."""
        each = self.num_images_per_prompt
        embeds, negative = (
            None if given is None else np.repeat(given, each, axis=0)
            for given in (self.prompt_embeds, self.negative_prompt_embeds)
        )
        prompts, negatives = (
            [prompt for prompt in texts for _ in range(each)]
            for texts in (self.prompts, self.negative_prompts)
        )
        return {
            "prompt": prompts if embeds is None else None,
            "negative_prompt": negatives if negative is None else None,
            "prompt_embeds": embeds,
            "negative_prompt_embeds": negative,
            "num_images_per_prompt": 1,
        }

    def grown(self, pictures: Sequence[Picture], growth: Growth, number: int) -> Request:
        """The request that repaints what `growth` adds to `pictures`, one for each picture that comes out."""
        canvases, masks = zip(*(grown(picture, growth) for picture in pictures), strict=True)
        assert self.seed is not None  # drawn on construction
        return replace(
            self,
            **self._prompts_of_pictures(),
            image=list(canvases),
            mask_image=list(masks),
            outpaint=None,
            output_type="np",
            height=None,
            width=None,
            # Other noise in every pass: the same would draw the same things again.
            seed=(self.seed + number * _SEED_OF_PASS) % (self._last_seed + 1),
        )

    @property
    def canvases(self) -> list[Canvas]:
        """Of each prompt the picture, its mask and the box that is worked on; of a request that `fit` has filled in."""
        assert self.height is not None
        assert self.width is not None
        return [
            Canvas(
                picture=picture,
                mask=mask,
                box=crop_box(mask, self.padding_mask_crop, self.height, self.width),
                height=self.height,
                width=self.width,
                blur=self.mask_blur,
            )
            for picture, mask in zip(self.image, self.mask_image, strict=True)
        ]

    def _check_levels(self) -> None:
        """Of `timesteps` or `sigmas`, which say how many steps there are."""
        if self.timesteps is not None:
            self._set("timesteps", numbers("timesteps", self.timesteps, MAX_STEPS, integer, 0, 10**6))
            self._set("num_inference_steps", len(self.timesteps))
        if self.sigmas is not None:
            self._set("sigmas", numbers("sigmas", self.sigmas, MAX_STEPS + 1, as_given, 0.0, 1e6))
            self._set("num_inference_steps", max(1, len(self.sigmas) - 1))
        for name in ("timesteps", "sigmas"):
            if getattr(self, name) is not None and self.hires_steps is not None:
                raise RequestError(f"expected at most one of {name} and hires_steps, got both")

    def windows(self, capabilities: Capabilities) -> Windows | None:
        """The windows in which the U-Net sees the latents, of a request that `fit` has filled in."""
        assert self.height is not None
        assert self.width is not None
        if self.tile_size is None or max(self.height, self.width) <= self.tile_size:
            return None
        factor = capabilities.vae_scale_factor
        overlap = self.tile_size // 4 if self.tile_overlap is None else self.tile_overlap
        return Windows.of(
            self.height // factor,
            self.width // factor,
            side=self.tile_size // factor,
            overlap=overlap // factor,
        )

    def _check_tiles(self, capabilities: Capabilities) -> None:
        if self.tile_size is None:
            return
        _check_step("tile_size", self.tile_size, capabilities)
        most = self.max_size or MAX_SIZE
        if self.tile_size > most:
            raise RequestError(
                f"tile_size is {self.tile_size}: expected at most {most}, or allow more with max_size"
            )
        if self.guidance_rescale:
            raise RequestError(
                "expected at most one of tile_size and guidance_rescale, which goes by whole pictures"
            )
        if self.tile_overlap is not None:
            _check_step("tile_overlap", self.tile_overlap, capabilities)
        if self.tile_overlap is not None and self.tile_overlap > self.tile_size // 2:
            raise RequestError(
                f"tile_overlap is {self.tile_overlap}: expected at most {self.tile_size // 2}, half of tile_size"
            )

    def _check_sizes(self) -> None:
        for name in ("height", "width"):
            if getattr(self, name) is not None:
                self._set(name, integer(name, getattr(self, name), 1, 2**31))
        for name, least in (("tile_size", 1), ("tile_overlap", 0)):
            if getattr(self, name) is not None:
                self._set(name, integer(name, getattr(self, name), least, 2**20))
        if self.max_size is not None:
            self._set("max_size", integer("max_size", self.max_size, 1, 2**20))

    def _check_seed(self) -> None:
        if self.seed is None:
            self._set("seed", secrets.randbelow(self._last_seed + 1))
        else:
            self._set("seed", integer("seed", self.seed, 0, self._last_seed))

    @property
    def _last_seed(self) -> int:
        """The largest that leaves every picture one."""
        return MAX_SEED + 1 - self.num_pictures

    def _check_embeds(self, capabilities: Capabilities) -> None:
        embeds, negative = self.prompt_embeds, self.negative_prompt_embeds
        if embeds is not None:
            check_shape("prompt_embeds", embeds, (None, None, capabilities.cross_attention_dim))
        if negative is not None:
            length = embeds.shape[1] if embeds is not None else None
            check_shape(
                "negative_prompt_embeds",
                negative,
                (self.num_prompts, length, capabilities.cross_attention_dim),
            )


def _no_encoder(what: str) -> RequestError:
    return RequestError(
        f"this model has no vae_encoder, which {what} needs: export the checkpoint again with sdrt export"
    )


def _share(strength: float, steps: int) -> int:
    return min(int(steps * strength), steps)


def _no_steps(name: str, strength: float, steps: int) -> RequestError:
    least = f"{1 / steps:.2g}"
    return RequestError(
        f"{name} is {strength:g}, which leaves none of {steps} steps: expected {least} at least, or more steps"
    )


def _listed(text: str | Sequence[str]) -> list[str]:
    return [text] if isinstance(text, str) else list(text)


def _check_step(name: str, size: int, capabilities: Capabilities) -> None:
    step = capabilities.vae_scale_factor
    if size % step:
        below = max(step, size // step * step)
        raise RequestError(
            f"{name} is {size}: expected a multiple of {step}, such as {below} or {below + step}"
        )
    if size % capabilities.size_step:
        raise RequestError(
            f"{name} is {size}: this model was exported by optimum and takes multiples of "
            f"{capabilities.size_step}; export the checkpoint again with sdrt export for any multiple of {step}"
        )
