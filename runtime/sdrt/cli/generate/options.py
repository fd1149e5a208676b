"""The options that say how a picture is made, of every command that makes some."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from sdrt.cli.provider_options import (
    MEMORY_OPTIONS,
    allow_fallback_option,
    provider_option,
    provider_options_option,
)
from sdrt.model_folder.embedded import DEFAULT_MODEL

__all__ = ["picture_options"]

Command = Callable[..., Any]


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
        "-n", "--negative-prompt", metavar="TEXT", default="", help="What the picture should not show."
    ),
    click.option(
        "--prompt-syntax",
        type=click.Choice(["a1111", "compel", "plain"]),
        default="a1111",
        show_default=True,
        help="Weights, BREAK, editing, alternation and AND as in AUTOMATIC1111's web UI; weights, .blend() and .and() "
        "as in Compel; or none of them.",
    ),
    click.option(
        "--embedding",
        "embeddings",
        metavar="FILE",
        multiple=True,
        help="Textual inversion in .safetensors; prompts call it by the file's name, or as the file says.",
    ),
    click.option(
        "-i", "--image", metavar="FILE", help="Picture to begin from; its size is the default, rounded down."
    ),
    click.option(
        "--strength",
        "--denoising-strength",
        "strength",
        type=float,
        help="How much of the picture to make anew, 0 to 1: this share of the steps is taken.  [default: 0.8; with a "
        "mask 1]",
    ),
    click.option(
        "--mask",
        "--mask-image",
        "mask_image",
        metavar="FILE",
        help="Repaint the picture where this one is white.",
    ),
    click.option(
        "--mask-blur",
        type=float,
        default=4.0,
        show_default=True,
        help="Pixels inside of the mask over which what is made fades in.",
    ),
    click.option(
        "--padding-mask-crop",
        type=int,
        metavar="PIXELS",
        help="Work on the mask's surroundings alone, so many pixels of them, at full resolution.",
    ),
    click.option(
        "--outpaint",
        metavar="SIDES|SIZE",
        help="Grow the picture: left=64,top=32, or to 768x512, or to 768x512@left.",
    ),
    click.option(
        "--image-guidance-scale",
        type=float,
        help="How closely to keep to the picture, of models that follow instructions.  [default: 1.5]",
    ),
    click.option(
        "--noise-level",
        type=int,
        help="Noise to put on the small picture, of models that upscale.  [default: 20]",
    ),
    click.option(
        "--guidance-rescale",
        type=float,
        default=0.0,
        show_default=True,
        help="How much of guidance's effect on contrast to take back, 0 to 1.",
    ),
    click.option(
        "--timesteps",
        metavar="A,B,…",
        type=Numbers(int),
        help="Timesteps, in place of --steps and --spacing.",
    ),
    click.option(
        "--sigmas",
        metavar="A,B,…",
        type=Numbers(float),
        help="Noise levels and the final one, in place of the same.",
    ),
    click.option(
        "--hires",
        "hires_scale",
        metavar="TIMES",
        type=float,
        help="Enlarge what was made so many times and denoise it again.",
    ),
    click.option(
        "--hires-strength",
        type=float,
        default=0.7,
        show_default=True,
        help="How much of the enlarged picture to make anew.",
    ),
    click.option("--hires-steps", type=int, help="Of the enlarged picture.  [default: --steps]"),
    click.option(
        "--hires-upscaler",
        type=click.Choice(["latent", "lanczos"]),
        default="latent",
        show_default=True,
        help="Enlarge latents, which invents more, or the picture.",
    ),
    click.option(
        "--tile-size", type=int, metavar="PIXELS", help="Denoise a large picture in windows of this size."
    ),
    click.option(
        "--tile-overlap",
        type=int,
        metavar="PIXELS",
        help="What windows share.  [default: a quarter of their size]",
    ),
    click.option("--no-composite", is_flag=True, help="Keep all of what was made, outside of the mask too."),
    click.option("--steps", "--num-inference-steps", "steps", type=int, default=50, show_default=True),
    click.option(
        "--guidance-scale",
        "--cfg-scale",
        "guidance_scale",
        type=float,
        help="How closely to follow the prompt; 1 or less ignores the negative prompt and takes half the time."
        "  [default: the model's, 7.5 for most]",
    ),
    click.option("-W", "--width", type=int, help="Pixels, a multiple of 8.  [default: the model's]"),
    click.option("-H", "--height", type=int, help="Pixels, a multiple of 8.  [default: the model's]"),
    click.option("-s", "--seed", type=int, help="Picture i has seed + i.  [default: random, printed]"),
    click.option("--scheduler", metavar="NAME|FILE", help="For example `euler`, or a scheduler_config.json."),
    click.option("--spacing", metavar="NAME", help="Which noise levels are visited, for example `karras`."),
    click.option(
        "--eta", type=float, default=0.0, show_default=True, help="Noise that DDIM adds in each step."
    ),
    click.option(
        "--clip-skip", type=int, help="Layers of the text encoder to leave out, counted as diffusers does."
    ),
    click.option("-f", "--force", is_flag=True, help="Overwrite existing files."),
    click.option("--no-metadata", is_flag=True, help="Leave out of the file how it was made."),
    provider_option,
    provider_options_option,
    allow_fallback_option,
    *MEMORY_OPTIONS,
    click.option("--threads", type=int, help="CPU threads.  [default: every core]"),
    click.option("--revision", help="Branch, tag or commit of a hub id."),
    click.option("--max-size", type=int, help="Allow sides up to this many pixels."),
    click.option("-q", "--quiet", is_flag=True, help="No progress and no notices; errors only."),
)


def picture_options(command: Command) -> Command:
    """The decorator that gives a command all of them, in their order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
