"""The options that say how an image is made, for every command that makes some."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from sdrt.cli.provider_options import (
    MEMORY_OPTIONS,
    allow_fallback_option,
    provider_option,
    provider_options_option,
)
from sdrt.model_folder.embedded import DEFAULT_MODEL

__all__ = ["GROUPS", "picture_options"]

Command = Callable[..., Any]

GROUPS: Mapping[str, tuple[str, ...]] = {
    "The options that most people need": (
        *("model", "negative_prompt", "steps", "guidance_scale", "width", "height"),
        *("seed", "scheduler", "image", "output"),
    ),
    "Many images": ("x", "y", "z", "batch_size", "count", "prompts_file", "from_picture", "grid"),
    "Prompts": ("prompt_syntax", "embeddings", "clip_skip"),
    "Image to image": ("strength", "image_guidance_scale", "noise_level"),
    "Inpainting and outpainting": (
        *("mask_image", "mask_blur", "padding_mask_crop", "no_composite", "outpaint"),
    ),
    "Large images": (
        *("hires_scale", "hires_strength", "hires_steps", "hires_upscaler"),
        *("tile_size", "tile_overlap", "max_size"),
    ),
    "Sampling": ("spacing", "eta", "guidance_rescale", "timesteps", "sigmas"),
    "The machine": (
        *("provider", "provider_options", "allow_fallback", "threads"),
        *("vae_tiling", "low_vram", "revision"),
    ),
    "Previews": ("preview", "preview_file", "preview_every"),
}
"""Which options the help shows together. What is in none of them comes last."""


class Numbers(click.ParamType):  # type: ignore[type-arg]  # generic in its stubs alone
    """Numbers with commas between them."""

    name = "numbers"

    def __init__(self, kind: type[int] | type[float]) -> None:
        self._kind = kind

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Raise click's own error for what is no number."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(self._kind(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of numbers such as 999,500,20", param, ctx)


_OPTIONS = (
    click.option(
        "-m",
        "--model",
        metavar="MODEL",
        default=DEFAULT_MODEL,
        show_default=True,
        help="Model folder, hub id, or an embedded model; `sdrt models` lists them.",
    ),
    click.option(
        "-n", "--negative-prompt", metavar="TEXT", default="", help="What the image should not show."
    ),
    click.option(
        "--prompt-syntax",
        type=click.Choice(["a1111", "compel", "plain"]),
        default="a1111",
        show_default=True,
        help="How to read prompts: a1111 has (weights), BREAK, editing, alternation and AND; compel has weights+, "
        ".blend() and .and(); plain has none.",
    ),
    click.option(
        "--embedding",
        "embeddings",
        metavar="FILE",
        multiple=True,
        help="Load a textual inversion (.safetensors). Prompts use the name of the file, or the name in it.",
    ),
    click.option(
        "-i",
        "--image",
        metavar="FILE",
        help="Start from this image. Its size, rounded down, becomes the default size.",
    ),
    click.option(
        "--strength",
        "--denoising-strength",
        "strength",
        type=float,
        help="How much of the image to change, from 0 to 1. Also the share of the steps that run.  [default: 0.8; "
        "1 with a mask]",
    ),
    click.option(
        "--mask",
        "--mask-image",
        "mask_image",
        metavar="FILE",
        help="Repaint the image where this one is white.",
    ),
    click.option(
        "--mask-blur",
        type=float,
        default=4.0,
        show_default=True,
        help="Blend the new content in over this many pixels inside the mask.",
    ),
    click.option(
        "--padding-mask-crop",
        type=int,
        metavar="PIXELS",
        help="Repaint only the mask and this many pixels around it, at full resolution.",
    ),
    click.option(
        "--outpaint",
        metavar="SIDES|SIZE",
        help="Extend the image by pixels on each side (left=64,top=32) or to a size (768x512, 768x512@left).",
    ),
    click.option(
        "--image-guidance-scale",
        type=float,
        help="How closely to follow the image. Only for models that follow instructions.  [default: 1.5]",
    ),
    click.option(
        "--noise-level",
        type=int,
        help="Noise to add to the small image. Only for models that upscale.  [default: 20]",
    ),
    click.option(
        "--guidance-rescale",
        type=float,
        default=0.0,
        show_default=True,
        help="How much of the contrast that guidance adds to remove, from 0 to 1.",
    ),
    click.option(
        "--timesteps",
        metavar="A,B,…",
        type=Numbers(int),
        help="Run exactly these timesteps, instead of --steps and --spacing.",
    ),
    click.option(
        "--sigmas",
        metavar="A,B,…",
        type=Numbers(float),
        help="Run exactly these noise levels, the final one included, instead of --steps and --spacing.",
    ),
    click.option(
        "--hires",
        "hires_scale",
        metavar="TIMES",
        type=float,
        help="Make an image, enlarge it by this factor, and denoise it again (A1111's Hires. fix).",
    ),
    click.option(
        "--hires-strength",
        type=float,
        default=0.7,
        show_default=True,
        help="How much of the enlarged image to change.",
    ),
    click.option("--hires-steps", type=int, help="Steps for the enlarged image.  [default: --steps]"),
    click.option(
        "--hires-upscaler",
        type=click.Choice(["latent", "lanczos"]),
        default="latent",
        show_default=True,
        help="Enlarge the latents, which invents more detail, or the image.",
    ),
    click.option(
        "--tile-size", type=int, metavar="PIXELS", help="Denoise a large image in windows of this size."
    ),
    click.option(
        "--tile-overlap",
        type=int,
        metavar="PIXELS",
        help="How far windows overlap.  [default: a quarter of their size]",
    ),
    click.option("--no-composite", is_flag=True, help="Keep the model's whole output, outside the mask too."),
    click.option(
        "--steps",
        "--num-inference-steps",
        "steps",
        type=int,
        default=50,
        show_default=True,
        help="Denoising steps.",
    ),
    click.option(
        "--guidance-scale",
        "--cfg-scale",
        "guidance_scale",
        type=float,
        help="How closely to follow the prompt. At 1 or less, the negative prompt has no effect and a step takes half "
        "the time.  [default: the model's, mostly 7.5]",
    ),
    click.option("-W", "--width", type=int, help="In pixels, a multiple of 8.  [default: the model's]"),
    click.option("-H", "--height", type=int, help="In pixels, a multiple of 8.  [default: the model's]"),
    click.option("-s", "--seed", type=int, help="Image i gets seed + i.  [default: random, printed]"),
    click.option(
        "--scheduler",
        metavar="NAME|FILE",
        help="A name such as euler (`sdrt schedulers` lists them), or a scheduler_config.json.  [default: the model's]",
    ),
    click.option("--spacing", metavar="NAME", help="Which noise levels the steps visit, such as karras."),
    click.option(
        "--eta",
        type=float,
        default=0.0,
        show_default=True,
        help="How much noise DDIM adds in each step, from 0 to 1.",
    ),
    click.option(
        "--clip-skip",
        type=int,
        help="How many of the text encoder's last layers to skip, counted as in diffusers.",
    ),
    click.option("-f", "--force", is_flag=True, help="Overwrite existing files."),
    click.option("--no-metadata", is_flag=True, help="Do not write into the file how it was made."),
    provider_option,
    provider_options_option,
    allow_fallback_option,
    *MEMORY_OPTIONS,
    click.option("--threads", type=int, help="CPU threads.  [default: every core]"),
    click.option("--revision", help="Branch, tag or commit of a model on the Hub."),
    click.option("--max-size", type=int, help="Allow sides of up to this many pixels."),
    click.option("-q", "--quiet", is_flag=True, help="Print errors only: no progress, no notices."),
)


def picture_options(command: Command) -> Command:
    """The decorator that gives a command all of them, in their order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
