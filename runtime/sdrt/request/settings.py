"""The table of settings. Each setting is declared here, or in another module of settings.

Each field is a row of the table: its name, type, default, and the other values of `Setting`. Many things are made from
these rows: `Request` and the checks of its single values, the signature and documentation of a pipeline's call, the
options of `sdrt generate` and `sdrt plot`, the keys of prompts files and axes, and the metadata that files contain and
`--from` reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sdrt.request.bounds import DEFAULT_IMAGE_GUIDANCE, DEFAULT_NOISE_LEVEL, DEFAULT_STRENGTH, MAX_STEPS
from sdrt.request.image_prompt_settings import ImagePromptSettings
from sdrt.request.setting import Group, Label, Option, setting

if TYPE_CHECKING:
    from sdrt.request.checks import Array

__all__ = ["Settings"]

_EMBEDS = "Embeddings [prompts, length, width] that replace {{{}}}."
_POOLED = "Pooled embeddings [prompts, width] that replace those of {{{}}}."
_WITH_EMBEDS = "SDXL needs them with such embeddings."


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Settings(ImagePromptSettings):
    """The settings of a request. The names and defaults are those of diffusers."""

    strength: float | None = setting(
        None,
        "How much to change the image, from 0 to 1. This is also the share of the steps that run.",
        usual=f"{DEFAULT_STRENGTH}; 1 with a mask or outpaint",
        kind=float,
        bounds=(0.0, 1.0),
        only_with=("image",),
        group=Group.IMAGE_TO_IMAGE,
        option=Option(("--strength", "--denoising-strength"), usual=f"{DEFAULT_STRENGTH}; 1 with a mask"),
        # A1111 has the same label for both strengths. With a `hires_scale`, it means `hires_strength`.
        label=Label("Denoising strength"),
    )
    image_guidance_scale: float | None = setting(
        None,
        "How closely to follow the image. Only for models that follow instructions.",
        usual=f"{DEFAULT_IMAGE_GUIDANCE}",
        kind=float,
        bounds=(-1e4, 1e4),
        only_with=("image",),
        group=Group.IMAGE_TO_IMAGE,
        option=Option(("--image-guidance-scale",)),
        label=Label("Image CFG scale"),
    )
    noise_level: int | None = setting(
        None,
        "How much noise to add to the small image. Only for models that upscale.",
        usual=f"{DEFAULT_NOISE_LEVEL}",
        kind=int,
        bounds=(0, 10_000),
        only_with=("image",),
        group=Group.IMAGE_TO_IMAGE,
        option=Option(("--noise-level",)),
        label=Label("Noise level"),
    )
    mask_image: Any = setting(
        None,
        "Repaint the image where this mask is white.",
        more="A path, the bytes of a file, an open file, a PIL image, an array [H, W], or a list with one mask for "
        "each prompt. Everything white is repainted, however thin. Pixels further away than {mask_blur} stay the same, "
        "bit for bit.",
        kind=str,
        only_with=("image",),
        group=Group.PAINTING,
        option=Option(("--mask", "--mask-image"), metavar="FILE|-"),
    )
    mask_blur: float = setting(
        4.0,
        "Fade the new content out over this many pixels around the mask. 0 keeps every pixel outside.",
        more="With {outpaint}, it fades in inside the new part.",
        kind=float,
        bounds=(0.0, 1000.0),
        keeps_int=True,
        only_with=("mask_image", "outpaint"),
        group=Group.PAINTING,
        option=Option(("--mask-blur",)),
        label=Label("Mask blur", always=True),
    )
    padding_mask_crop: int | None = setting(
        None,
        "Repaint only the mask and this many pixels around it, at full resolution.",
        more="Full resolution means height and width, or the model's own size.",
        kind=int,
        bounds=(0, 2**16),
        only_with=("mask_image",),
        group=Group.PAINTING,
        option=Option(("--padding-mask-crop",), metavar="PIXELS"),
        label=Label("Masked area padding"),
    )
    composite: bool = setting(
        True,
        "Keep the original pixels outside the mask. False returns the model's output for the whole image.",
        more="That is diffusers' result. It samples the mask at every eighth pixel, and misses lines in between.",
        kind=bool,
        only_with=("mask_image", "outpaint"),
        group=Group.PAINTING,
        option=Option(
            ("--no-composite",),
            help="Use the model's output for the whole image, like diffusers. By default, what is outside the mask "
            "stays the same.",
        ),
        label=Label("Composite"),
    )
    outpaint: Any = setting(
        None,
        "Extend the image by pixels on each side (left=64,top=32) or to a size (768x512, 768x512@left).",
        more='Sides may also be a dict, {"left": 64, "top": 32}. The pixels of the image stay the same, bit for bit, '
        "and the new content fades in from its edge. Extending the image by more than half of its size takes several "
        "passes, each with all steps.",
        kind=str,
        only_with=("image",),
        group=Group.PAINTING,
        option=Option(("--outpaint",), metavar="SIDES|SIZE"),
        label=Label("Outpaint"),
    )
    hires_scale: float | None = setting(
        None,
        "Make an image, enlarge it by this factor, and denoise it again (A1111's Hires. fix).",
        kind=float,
        bounds=(1.0, 16.0),
        group=Group.LARGE,
        option=Option(("--hires",), metavar="TIMES"),
        label=Label("Hires upscale"),
    )
    hires_strength: float = setting(
        0.7,
        "How much to change the enlarged image, from 0 to 1.",
        more="This is also the share of {hires_steps} that run.",
        kind=float,
        bounds=(0.0, 1.0),
        only_with=("hires_scale",),
        group=Group.LARGE,
        option=Option(("--hires-strength",)),
        label=Label("Denoising strength", always=True),
    )
    hires_steps: int | None = setting(
        None,
        "Number of steps for the enlarged image.",
        usual="{num_inference_steps}",
        kind=int,
        bounds=(1, MAX_STEPS),
        only_with=("hires_scale",),
        group=Group.LARGE,
        option=Option(("--hires-steps",)),
        label=Label("Hires steps"),
    )
    hires_upscaler: str = setting(
        "latent",
        "What to enlarge: the latents (latent), which invents more detail, or the image (lanczos).",
        kind=str,
        choices=("latent", "lanczos"),
        only_with=("hires_scale",),
        group=Group.LARGE,
        option=Option(("--hires-upscaler",)),
        label=Label("Hires upscaler", read=str.lower, write=str.capitalize, always=True),
    )
    hires_scheduler: str | None = setting(
        None,
        "Scheduler for the enlarged image, by name, such as DPM++ 2M Karras.",
        usual="that of the first pass",
        kind=str,
        only_with=("hires_scale",),
        group=Group.LARGE,
        option=Option(("--hires-scheduler",), metavar="NAME"),
        label=Label("Hires sampler"),
    )
    tile_size: int | None = setting(
        None,
        "Denoise a large image in windows of this size, in pixels.",
        more="The U-Net needs only the memory of one window, and time grows with the area.",
        kind=int,
        bounds=(1, 2**20),
        group=Group.LARGE,
        option=Option(("--tile-size",), metavar="PIXELS"),
        label=Label("Tile size"),
    )
    tile_overlap: int | None = setting(
        None,
        "How far the windows overlap, in pixels.",
        usual="a quarter of the tile size",
        kind=int,
        bounds=(0, 2**20),
        only_with=("tile_size",),
        group=Group.LARGE,
        option=Option(("--tile-overlap",), metavar="PIXELS"),
        label=Label("Tile overlap"),
    )
    max_size: int | None = setting(
        None,
        "Allow images with sides of up to this many pixels.",
        kind=int,
        bounds=(1, 2**20),
        group=Group.LARGE,
        option=Option(("--max-size",)),
    )
    safety_checker: bool = setting(
        True,
        "Check the images with the model's safety checker, if it has one. Images that it flags are black.",
        more="Previews are not checked. As in diffusers, neither are latents ({output_type} latent).",
        kind=bool,
        group=Group.USUAL,
        option=Option(
            ("--no-safety-checker",),
            help="Show images that the model's safety checker would make black.",
        ),
        label=Label("Safety checker"),
    )
    eta: float = setting(
        0.0,
        "How much noise DDIM adds in each step, from 0 to 1.",
        kind=float,
        bounds=(0.0, 1.0),
        keeps_int=True,
        group=Group.SAMPLING,
        option=Option(("--eta",)),
        label=Label("Eta"),
    )
    guidance_rescale: float = setting(
        0.0,
        "Reduce the contrast that guidance adds. 0 keeps it, and 1 removes it.",
        more="The method is that of Lin et al. 2023, arXiv:2305.08891, section 3.4.",
        kind=float,
        bounds=(0.0, 1.0),
        keeps_int=True,
        group=Group.SAMPLING,
        option=Option(("--guidance-rescale",)),
        label=Label("CFG rescale"),
    )
    guidance_interval: Sequence[float] | None = setting(
        None,
        "Guide only the steps between these two shares of them, from 0 to 1. The others take half the time.",
        more="Outside, the unconditional half is not computed, and the negative prompt has no effect. In image to "
        "image, the shares are those of the steps that run. Prompts that AND joins keep their unconditional half, with "
        "a guidance scale of 1. The method is that of Kynkäänniemi et al. 2024, arXiv:2404.07724.",
        usual="0,1",
        kind=float,
        bounds=(0.0, 1.0),
        max_items=2,
        keeps_int=True,
        group=Group.SAMPLING,
        option=Option(("--guidance-interval",), metavar="START,END"),
        label=Label("CFG interval"),
    )
    accelerate: str = setting(
        "off",
        "Call the U-Net only in some steps: in about half of them (balanced), or in a third (fast).",
        more="In the others, a sum of what past calls gave takes their place. Nothing is skipped in runs of few steps. "
        "The result has the number of skipped_calls.",
        kind=str,
        choices=("off", "balanced", "fast"),
        group=Group.SAMPLING,
        option=Option(("--accelerate",)),
        label=Label("Acceleration"),
    )
    timesteps: Sequence[int] | None = setting(
        None,
        "Run exactly these timesteps. They replace {num_inference_steps} and {spacing}.",
        kind=int,
        bounds=(0, 10**6),
        max_items=MAX_STEPS,
        group=Group.SAMPLING,
        option=Option(("--timesteps",), metavar="A,B,…"),
        label=Label("Timesteps"),
    )
    sigmas: Sequence[float] | None = setting(
        None,
        "Run exactly these noise levels, including the final one. They replace {num_inference_steps} and {spacing}.",
        kind=float,
        bounds=(0.0, 1e6),
        max_items=MAX_STEPS + 1,
        keeps_int=True,
        group=Group.SAMPLING,
        option=Option(("--sigmas",), metavar="A,B,…"),
        label=Label("Sigmas"),
    )
    latents: Array | None = setting(
        None,
        "Start from this unit noise, an array [images, C, H/8, W/8].",
        usual="drawn from the seed",
        rank=4,
        group=Group.PROGRAMS,
    )
    prompt_embeds: Array | None = setting(None, _EMBEDS.format("prompt"), rank=3, group=Group.PROGRAMS)
    negative_prompt_embeds: Array | None = setting(
        None, _EMBEDS.format("negative_prompt"), rank=3, group=Group.PROGRAMS
    )
    pooled_prompt_embeds: Array | None = setting(
        None, _POOLED.format("prompt"), more=_WITH_EMBEDS, rank=2, group=Group.PROGRAMS
    )
    negative_pooled_prompt_embeds: Array | None = setting(
        None, _POOLED.format("negative_prompt"), more=_WITH_EMBEDS, rank=2, group=Group.PROGRAMS
    )
    output_type: str = setting(
        "pil",
        'The type of images: "pil" for PIL images, "np" for float32 [N, H, W, 3] from 0 to 1, "latent" for latents '
        "[N, C, h, w].",
        kind=str,
        choices=("pil", "np", "latent"),
        group=Group.PROGRAMS,
    )
