"""What is asked for: one frozen value, checked before any work is done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdrt.request.bounds import DEFAULT_STRENGTH, MAX_SEED
from sdrt.request.validation import validate
from sdrt.tasks.hires import Latents

if TYPE_CHECKING:
    from sdrt.families.capabilities import Capabilities
    from sdrt.request.fitted import FittedRequest

__all__ = ["Request"]

Array = NDArray[np.float32]


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
        validate(self)

    def fit(self, capabilities: Capabilities) -> FittedRequest:
        """What this request means for a model. Raises `RequestError` for what the model cannot do."""
        from sdrt.request.fitted import fit

        return fit(self, capabilities)

    @property
    def num_steps(self) -> int:
        """Steps that are taken."""
        return self.num_inference_steps - self.num_skipped_steps

    @property
    def num_skipped_steps(self) -> int:
        """Steps that an image prompt stands for: diffusers' rule."""
        if self.image is None:
            return 0
        return self.num_inference_steps - _share(self.usual_strength, self.num_inference_steps)

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

    @property
    def usual_strength(self) -> float:
        """The strength, or what it is where none is given."""
        if self.strength is not None:
            return self.strength
        return DEFAULT_STRENGTH if self.mask_image is None and self.outpaint is None else 1.0

    @property
    def last_seed(self) -> int:
        """The largest that leaves every picture one."""
        return MAX_SEED + 1 - self.num_pictures


def _share(strength: float, steps: int) -> int:
    return min(int(steps * strength), steps)


def _listed(text: str | Sequence[str]) -> list[str]:
    return [text] if isinstance(text, str) else list(text)
