"""What is asked for: one frozen value, checked before any work is done."""

from __future__ import annotations

import math
import operator
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.errors import RequestError
from sdrt.limits import Limits
from sdrt.rng import MAX_SEED
from sdrt.wording import brief

__all__ = [
    "MAX_PICTURES",
    "MAX_PROMPT_LENGTH",
    "MAX_SEED",
    "MAX_SIZE",
    "MAX_STEPS",
    "OUTPUT_TYPES",
    "Request",
]

MAX_STEPS = 1000
MAX_SIZE = 2048
"""Pixels a side; a call may raise it with `max_size`. Attention's time grows with the fourth power."""
MAX_PICTURES = 1024
MAX_PROMPT_LENGTH = 20_000
"""Characters. A model reads some 77 tokens, so this is far beyond use and far below what hurts."""
OUTPUT_TYPES = ("pil", "np", "latent")

Array = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """Pictures to make; names and defaults are diffusers'. Raises `RequestError` on construction.

    `latents` [pictures, C, H/8, W/8] is unit noise; `prompt_embeds` [prompts, length, width]. Picture `i` has
    seed `seed + i`; a missing seed is drawn here, so `seed` is always a number afterwards.
    """

    prompt: str | Sequence[str] | None = None
    height: int | None = None
    width: int | None = None
    num_inference_steps: int = 50
    guidance_scale: float = 7.5
    negative_prompt: str | Sequence[str] | None = None
    num_images_per_prompt: int = 1
    eta: float = 0.0
    seed: int | None = None
    latents: Array | None = None
    prompt_embeds: Array | None = None
    negative_prompt_embeds: Array | None = None
    output_type: str = "pil"
    clip_skip: int | None = None
    max_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("latents", "prompt_embeds", "negative_prompt_embeds"):
            self._set(name, _tensor(name, getattr(self, name)))
        self._check_prompts()
        self._set(
            "num_inference_steps", _integer("num_inference_steps", self.num_inference_steps, 1, MAX_STEPS)
        )
        most = max(1, MAX_PICTURES // max(1, self.num_prompts))
        self._set(
            "num_images_per_prompt", _integer("num_images_per_prompt", self.num_images_per_prompt, 1, most)
        )
        self._set("guidance_scale", _real("guidance_scale", self.guidance_scale, -1e4, 1e4))
        self._set("eta", _real("eta", self.eta, 0.0, 1.0))
        self._check_sizes()
        if self.clip_skip is not None:
            self._set("clip_skip", _integer("clip_skip", self.clip_skip, 0, 1000))
        if not isinstance(self.output_type, str) or self.output_type not in OUTPUT_TYPES:
            raise RequestError(
                f"output_type is {brief(self.output_type)}: expected one of {', '.join(OUTPUT_TYPES)}"
            )
        self._check_seed()

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
        return self.guidance_scale > 1.0

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

    def fit(self, limits: Limits) -> Request:
        """This request with its size filled in, checked against the model. Raises `RequestError`."""
        height, width = self.height or limits.default_height, self.width or limits.default_width
        if self.latents is not None and self.height is None and self.width is None and self.latents.ndim == 4:
            height, width = (size * limits.vae_scale_factor for size in self.latents.shape[2:])
        for name, size in (("height", height), ("width", width)):
            _check_size(name, size, self.max_size, limits)
        if self.prompt_embeds is None and not limits.has_text_encoder:
            raise RequestError("this model has no text encoder: give prompt_embeds instead of prompt")
        needs_text = self.guided and self.negative_prompt_embeds is None
        if needs_text and not limits.has_text_encoder:
            raise RequestError(
                "this model has no text encoder: give negative_prompt_embeds, or guidance_scale=1"
            )
        factor, channels = limits.vae_scale_factor, limits.latent_channels
        _check_shape(
            "latents", self.latents, (self.num_pictures, channels, height // factor, width // factor)
        )
        self._check_embeds(limits)
        return replace(self, height=height, width=width)

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_prompts(self) -> None:
        if (self.prompt is None) == (self.prompt_embeds is None):
            given = "neither" if self.prompt is None else "both"
            raise RequestError(f"expected either prompt or prompt_embeds, got {given}")
        if self.negative_prompt is not None and self.negative_prompt_embeds is not None:
            raise RequestError("expected at most one of negative_prompt and negative_prompt_embeds, got both")
        for name in ("prompt", "negative_prompt"):
            _check_text(name, getattr(self, name))
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

    def _check_sizes(self) -> None:
        for name in ("height", "width"):
            if getattr(self, name) is not None:
                self._set(name, _integer(name, getattr(self, name), 1, 2**31))
        if self.max_size is not None:
            self._set("max_size", _integer("max_size", self.max_size, 1, 2**20))

    def _check_seed(self) -> None:
        last = MAX_SEED + 1 - self.num_pictures
        if self.seed is None:
            self._set("seed", secrets.randbelow(last + 1))
        else:
            self._set("seed", _integer("seed", self.seed, 0, last))

    def _check_embeds(self, limits: Limits) -> None:
        embeds, negative = self.prompt_embeds, self.negative_prompt_embeds
        if embeds is not None:
            _check_shape("prompt_embeds", embeds, (None, None, limits.cross_attention_dim))
        if negative is not None:
            length = embeds.shape[1] if embeds is not None else None
            _check_shape(
                "negative_prompt_embeds", negative, (self.num_prompts, length, limits.cross_attention_dim)
            )


def _listed(text: str | Sequence[str]) -> list[str]:
    return [text] if isinstance(text, str) else list(text)


def _check_text(name: str, value: object) -> None:
    if value is None:
        return
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(text, str) for text in texts):
        raise RequestError(f"{name} is {type(value).__name__}: expected a text or a non-empty list of texts")
    for text in texts:
        if len(text) > MAX_PROMPT_LENGTH:
            raise RequestError(f"{name} has {len(text)} characters: expected at most {MAX_PROMPT_LENGTH}")
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise RequestError(
                f"{name} holds half a surrogate pair, which is no character: expected Unicode text"
            )


def _integer(name: str, value: object, low: int, high: int) -> int:
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not low <= number <= high:
        raise RequestError(f"{name} is {brief(value)}: expected a whole number from {low} to {high}")
    return number


def _real(name: str, value: Any, low: float, high: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(value, (bool, str)) or not low <= number <= high:
        raise RequestError(f"{name} is {brief(value)}: expected a number from {low:g} to {high:g}")
    return number


def _tensor(name: str, value: Any) -> Array | None:
    if value is None:
        return None
    rank = 4 if name == "latents" else 3
    try:
        array = np.asarray(value)
    except ValueError:
        raise RequestError(
            f"{name} has rows of unequal length: expected an array of {rank} dimensions"
        ) from None
    if not np.issubdtype(array.dtype, np.floating) or array.ndim != rank or array.size == 0:
        raise RequestError(
            f"{name} is {array.dtype} of shape {array.shape}: "
            f"expected {rank} dimensions of floating-point numbers"
        )
    # A float64 may be out of range of the float32 that the graphs take.
    with np.errstate(over="ignore"):
        array = array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise RequestError(
            f"{name} holds NaN, infinity or what is infinite in float32: expected finite numbers"
        )
    return array


def _check_shape(name: str, array: Array | None, shape: tuple[int | None, ...]) -> None:
    if array is None or all(want in (None, got) for want, got in zip(shape, array.shape, strict=True)):
        return
    wanted = ", ".join("any" if size is None else str(size) for size in shape)
    raise RequestError(f"{name} has shape {array.shape}: expected ({wanted})")


def _check_size(name: str, size: int, max_size: int | None, limits: Limits) -> None:
    most, step = max_size or MAX_SIZE, limits.vae_scale_factor
    if size % step:
        below = max(step, size // step * step)
        raise RequestError(
            f"{name} is {size}: expected a multiple of {step}, such as {below} or {below + step}"
        )
    if size % limits.size_step:
        raise RequestError(
            f"{name} is {size}: this model was exported by optimum and takes multiples of "
            f"{limits.size_step}; export the checkpoint again with sdrt export for any multiple of {step}"
        )
    if size > most:
        raise RequestError(
            f"{name} is {size}: expected at most {most}, since time grows with its fourth power; allow more "
            f"with max_size={size} (--max-size {size})"
        )
