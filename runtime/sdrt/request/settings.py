"""The table of settings. A setting is written here and nowhere else; what it does is elsewhere.

Each field is a row: its name, its type, its default, and what `Setting` holds. Made of the rows are `Request` and its
checks of single values, the signature and documentation of a pipeline's call, the options of `sdrt generate` and
`sdrt plot`, the keys of prompts files and axes, and what image files say and `--from` reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

from sdrt.request.bounds import DEFAULT_IMAGE_GUIDANCE, DEFAULT_NOISE_LEVEL, DEFAULT_STRENGTH, MAX_STEPS
from sdrt.request.setting import Group, Label, Option, setting

if TYPE_CHECKING:
    from sdrt.request.checks import Array

__all__ = ["Settings"]


@dataclass(frozen=True, eq=False, repr=False)
class Settings:
    """What a request says. The names and defaults are diffusers'."""

    prompt: str | Sequence[str] | None = setting(
        None,
        "What the images show: a text, or a list of texts.",
        kind=str,
        group=Group.USUAL,
        option=Option(),
    )
    height: int | None = setting(
        None,
        "In pixels, a multiple of 8.",
        usual="the model's, or that of image",
        kind=int,
        bounds=(1, 2**31),
        group=Group.USUAL,
        option=Option(("-H", "--height"), usual="the model's"),
    )
    width: int | None = setting(
        None,
        "In pixels, a multiple of 8.",
        usual="the model's, or that of image",
        kind=int,
        bounds=(1, 2**31),
        group=Group.USUAL,
        option=Option(("-W", "--width"), usual="the model's"),
    )
    num_inference_steps: int = setting(
        50,
        "Denoising steps.",
        kind=int,
        bounds=(1, MAX_STEPS),
        group=Group.USUAL,
        option=Option(("--steps", "--num-inference-steps"), key="steps"),
        label=Label("Steps", always=True),
    )
    _: KW_ONLY
    negative_prompt: str | Sequence[str] | None = setting(
        None,
        "What the image should not show.",
        more="One text for all prompts, or a list with one for each.",
        kind=str,
        group=Group.USUAL,
        option=Option(("-n", "--negative-prompt"), metavar="TEXT"),
    )
    guidance_scale: float | None = setting(
        None,
        "How closely to follow the prompt. At 1 or less, the negative prompt has no effect and a step takes half the "
        "time.",
        usual="the model's, mostly 7.5",
        kind=float,
        bounds=(-1e4, 1e4),
        group=Group.USUAL,
        option=Option(("--guidance-scale", "--cfg-scale")),
        label=Label("CFG scale"),
    )
    num_images_per_prompt: int = setting(
        1, "Images of each prompt, denoised at once.", kind=int, group=Group.MANY
    )
    seed: int | None = setting(
        None,
        "Image i gets seed + i.",
        usual="random; the result says which",
        kind=int,
        group=Group.USUAL,
        option=Option(("-s", "--seed"), usual="random, printed"),
        label=Label("Seed"),
    )
    image: Any = setting(
        None,
        "Start from this image. Its size, rounded down, becomes the default size.",
        more="A path, a PIL image, an array [H, W, 3] of bytes or of floats from 0 to 1, latents [N, C, h, w], or a "
        "list with one image for each prompt (SDEdit, Meng et al. 2021, arXiv:2108.01073).",
        kind=str,
        group=Group.USUAL,
        option=Option(("-i", "--image"), metavar="FILE"),
    )
    prompt_syntax: str = setting(
        "a1111",
        "How to read prompts: a1111 has (weights), BREAK, editing, alternation and AND; compel has weights+, .blend() "
        "and .and(); plain has none.",
        more="plain cuts a text after one chunk. compel's weights below 1 are those of its DownweightMode.REMOVE, as "
        "text encoders take no mask here.",
        kind=str,
        choices=("a1111", "compel", "plain"),
        group=Group.PROMPTS,
        option=Option(("--prompt-syntax",)),
        label=Label("Prompt syntax"),
    )
    clip_skip: int | None = setting(
        None,
        "How many of the text encoder's last layers to skip, counted as in diffusers.",
        kind=int,
        bounds=(0, 1000),
        group=Group.PROMPTS,
        option=Option(("--clip-skip",)),
        # A1111 counts the last layer as 1, diffusers as 0.
        label=Label("Clip skip", read=lambda text: int(text) - 1, write=lambda skip: str(skip + 1)),
    )
    strength: float | None = setting(
        None,
        "How much of the image to change, from 0 to 1. Also the share of the steps that run.",
        usual=f"{DEFAULT_STRENGTH}; 1 with a mask or outpaint",
        kind=float,
        bounds=(0.0, 1.0),
        only_with=("image",),
        group=Group.IMAGE_TO_IMAGE,
        option=Option(("--strength", "--denoising-strength"), usual=f"{DEFAULT_STRENGTH}; 1 with a mask"),
        # A1111 has one name for both strengths: the second where there is a `hires_scale`.
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
        "Noise to add to the small image. Only for models that upscale.",
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
        "Repaint the image where this one is white.",
        more="A path, a PIL image, an array [H, W], or a list with one for each prompt. The rest stays, bit for bit.",
        kind=str,
        only_with=("image",),
        group=Group.PAINTING,
        option=Option(("--mask", "--mask-image"), metavar="FILE"),
    )
    mask_blur: float = setting(
        4.0,
        "Blend the new content in over this many pixels inside the mask.",
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
        more="Full resolution is height and width, or the model's own size.",
        kind=int,
        bounds=(0, 2**16),
        only_with=("mask_image",),
        group=Group.PAINTING,
        option=Option(("--padding-mask-crop",), metavar="PIXELS"),
        label=Label("Masked area padding"),
    )
    composite: bool = setting(
        True,
        "Keep the pixels outside the mask; False gives the model's whole output.",
        kind=bool,
        only_with=("mask_image", "outpaint"),
        group=Group.PAINTING,
        option=Option(
            ("--no-composite",),
            help="Keep the model's whole output, outside the mask too.",
        ),
        label=Label("Composite"),
    )
    outpaint: Any = setting(
        None,
        "Extend the image by pixels on each side (left=64,top=32) or to a size (768x512, 768x512@left).",
        more='Sides may be a dict, {"left": 64, "top": 32}. The image stays bit for bit; what is new fades in from '
        "its edge. Growth by more than half of what there is takes several passes, each of all steps.",
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
        "How much of the enlarged image to change.",
        more="Also the share of {hires_steps} that run.",
        kind=float,
        bounds=(0.0, 1.0),
        only_with=("hires_scale",),
        group=Group.LARGE,
        option=Option(("--hires-strength",)),
        label=Label("Denoising strength", always=True),
    )
    hires_steps: int | None = setting(
        None,
        "Steps for the enlarged image.",
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
        "Enlarge the latents, which invents more detail, or the image.",
        more='"latent" or "lanczos".',
        kind=str,
        choices=("latent", "lanczos"),
        only_with=("hires_scale",),
        group=Group.LARGE,
        option=Option(("--hires-upscaler",)),
        label=Label("Hires upscaler", read=str.lower, write=str.capitalize, always=True),
    )
    tile_size: int | None = setting(
        None,
        "Denoise a large image in windows of this size.",
        more="In pixels. The U-Net's memory is that of a window, and time grows with the area.",
        kind=int,
        bounds=(1, 2**20),
        group=Group.LARGE,
        option=Option(("--tile-size",), metavar="PIXELS"),
        label=Label("Tile size"),
    )
    tile_overlap: int | None = setting(
        None,
        "How far windows overlap.",
        usual="a quarter of their size",
        kind=int,
        bounds=(0, 2**20),
        only_with=("tile_size",),
        group=Group.LARGE,
        option=Option(("--tile-overlap",), metavar="PIXELS"),
        label=Label("Tile overlap"),
    )
    max_size: int | None = setting(
        None,
        "Allow sides of up to this many pixels.",
        kind=int,
        bounds=(1, 2**20),
        group=Group.LARGE,
        option=Option(("--max-size",)),
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
        "How much of the contrast that guidance adds to remove, from 0 to 1.",
        more="Lin et al. 2023, arXiv:2305.08891, section 3.4.",
        kind=float,
        bounds=(0.0, 1.0),
        keeps_int=True,
        group=Group.SAMPLING,
        option=Option(("--guidance-rescale",)),
        label=Label("CFG rescale"),
    )
    timesteps: Sequence[int] | None = setting(
        None,
        "Run exactly these timesteps, instead of {num_inference_steps} and {spacing}.",
        kind=int,
        bounds=(0, 10**6),
        most=MAX_STEPS,
        group=Group.SAMPLING,
        option=Option(("--timesteps",), metavar="A,B,…"),
        label=Label("Timesteps"),
    )
    sigmas: Sequence[float] | None = setting(
        None,
        "Run exactly these noise levels, the final one included, instead of {num_inference_steps} and {spacing}.",
        kind=float,
        bounds=(0.0, 1e6),
        most=MAX_STEPS + 1,
        keeps_int=True,
        group=Group.SAMPLING,
        option=Option(("--sigmas",), metavar="A,B,…"),
        label=Label("Sigmas"),
    )
    latents: Array | None = setting(
        None,
        "Unit noise [images, C, H/8, W/8] to start from.",
        usual="drawn by the seed",
        rank=4,
        group=Group.PROGRAMS,
    )
    prompt_embeds: Array | None = setting(
        None, "Embeddings [prompts, length, width] in place of {prompt}.", rank=3, group=Group.PROGRAMS
    )
    negative_prompt_embeds: Array | None = setting(
        None,
        "Embeddings [prompts, length, width] in place of {negative_prompt}.",
        rank=3,
        group=Group.PROGRAMS,
    )
    output_type: str = setting(
        "pil",
        'What images are: "pil" for PIL images, "np" for float32 [N, H, W, 3] from 0 to 1, "latent" for latents '
        "[N, C, h, w].",
        kind=str,
        choices=("pil", "np", "latent"),
        group=Group.PROGRAMS,
    )
