"""The settings of every image: its prompt, size, steps, guidance and seed, and the image that it starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sdrt.common.seeds import read_seed
from sdrt.request.bounds import MAX_STEPS
from sdrt.request.clip_skip import SkipOfLabel
from sdrt.request.setting import Group, Label, Option, setting

__all__ = ["UsualSettings"]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class UsualSettings:
    """The first rows of the table of settings, which `Settings` continues."""

    prompt: str | Sequence[str] | None = setting(
        None,
        "What the images show: a string, or a list of strings.",
        kind=str,
        group=Group.USUAL,
        option=Option(),
    )
    height: int | None = setting(
        None,
        "Height of the image in pixels, a multiple of 8.",
        usual="that of image, or the model's",
        kind=int,
        bounds=(1, 2**31),
        group=Group.USUAL,
        option=Option(("-H", "--height"), usual="the model's"),
    )
    width: int | None = setting(
        None,
        "Width of the image in pixels, a multiple of 8.",
        usual="that of image, or the model's",
        kind=int,
        bounds=(1, 2**31),
        group=Group.USUAL,
        option=Option(("-W", "--width"), usual="the model's"),
    )
    num_inference_steps: int | None = setting(
        None,
        "Number of denoising steps.",
        usual="the model's, mostly 50",
        kind=int,
        bounds=(1, MAX_STEPS),
        group=Group.USUAL,
        option=Option(("--steps", "--num-inference-steps"), key="steps"),
        label=Label("Steps", always=True),
    )
    negative_prompt: str | Sequence[str] | None = setting(
        None,
        "What the image should not show.",
        more="A string for all prompts, or a list with one string for each prompt.",
        kind=str,
        group=Group.USUAL,
        option=Option(("-n", "--negative-prompt"), metavar="TEXT"),
    )
    guidance_scale: float | None = setting(
        None,
        "How closely to follow the prompt. At 1 or less, the negative prompt has no effect, and a step takes half the "
        "time.",
        more="Latent consistency models take it as an input. With them, the negative prompt never has an effect.",
        usual="the model's, mostly 7.5",
        kind=float,
        bounds=(-1e4, 1e4),
        group=Group.USUAL,
        option=Option(("--guidance-scale", "--cfg-scale")),
        label=Label("CFG scale"),
    )
    num_images_per_prompt: int = setting(
        1, "How many images to make of each prompt, all at once.", kind=int, group=Group.MANY
    )
    seed: int | Sequence[int] | None = setting(
        None,
        "Seed of the first image, or -1 for a random one. Further images count up from it.",
        more="From -2**63 to 2**64 - 1, or a list with one seed for each image. torch's seeds are the same.",
        usual="random; the result contains it",
        kind=int,
        group=Group.USUAL,
        option=Option(("-s", "--seed"), usual="random, printed"),
        label=Label("Seed", read=read_seed, expected="the seed that was used; give one with --seed"),
    )
    image: Any = setting(
        None,
        "Start from this image. Its size, rounded down, becomes the default size.",
        more="A path, the bytes of a file, an open file, a PIL image, an array [H, W, 3] of bytes or of floats from 0 "
        "to 1, latents [N, C, h, w], or a list with one image for each prompt. The method is SDEdit (Meng et al. 2021, "
        "arXiv:2108.01073).",
        kind=str,
        group=Group.USUAL,
        option=Option(("-i", "--image"), metavar="FILE|-"),
    )
    prompt_2: str | Sequence[str] | None = setting(
        None,
        "The prompt for SDXL's second text encoder. The pooled embedding comes from it.",
        more="A string, or a list with one string for each prompt.",
        usual="{prompt}",
        kind=str,
        only_with=("prompt",),
        group=Group.PROMPTS,
        option=Option(("--prompt-2",), metavar="TEXT", usual="the prompt"),
        label=Label("Prompt 2"),
    )
    negative_prompt_2: str | Sequence[str] | None = setting(
        None,
        "The negative prompt for SDXL's second text encoder.",
        more="A string, or a list with one string for each prompt.",
        usual="{negative_prompt}",
        kind=str,
        group=Group.PROMPTS,
        option=Option(("--negative-prompt-2",), metavar="TEXT"),
        label=Label("Negative prompt 2"),
    )
    prompt_syntax: str = setting(
        "a1111",
        "How to read prompts: a1111 has (weights), BREAK, editing, alternation and AND; compel has weights+, .blend() "
        "and .and(); plain has none.",
        more="plain cuts a prompt off after one chunk. compel's weights below 1 are those of its "
        "DownweightMode.REMOVE, because the text encoders here take no mask.",
        kind=str,
        choices=("a1111", "compel", "plain"),
        group=Group.PROMPTS,
        option=Option(("--prompt-syntax",)),
        label=Label("Prompt syntax"),
    )
    lora: Any = setting(
        None,
        "Add the LoRA in this .safetensors file, with this weight.",
        more="A path, a text such as style.safetensors:0.8, or a list of these. style.safetensors:0.8:0.5 has weight "
        "0.8 in the text encoders and 0.5 in the U-Net. owner/name and owner/name:style.safetensors are on the hub. "
        "The active adapters of load_lora_weights stay in use.",
        kind=str,
        group=Group.PROMPTS,
        option=Option(
            ("--lora",),
            metavar="FILE[:WEIGHT]",
            also=("loras",),
            help="Add this LoRA, a .safetensors file or owner/name[:FILE] on the hub, with this weight.  [default: 1]  "
            "Can be repeated.",
            repeats=True,
        ),
    )
    lora_dir: Any = setting(
        None,
        "The folder of the LoRAs that prompts name, as in <lora:name:0.8>.",
        more="A path. Without it, such tags are left out of the prompt, with a notice.",
        kind=str,
        group=Group.PROMPTS,
        option=Option(("--lora-dir",), metavar="DIR"),
    )
    lora_scale: float = setting(
        1.0,
        "Multiply the weights of all LoRAs. 0 is the model without them.",
        kind=float,
        bounds=(-1000.0, 1000.0),
        keeps_int=True,
        group=Group.PROMPTS,
        option=Option(("--lora-scale",), also=("lora_weight",)),
    )
    prompt_comments: bool = setting(
        False,
        "Leave out what follows a # in each line of the prompts, as A1111's web UI does.",
        more="It is off by default, because prompts contain colours such as #ff0000 and titles such as #1.",
        kind=bool,
        group=Group.PROMPTS,
        option=Option(("--prompt-comments",)),
    )
    clip_skip: int | None = setting(
        None,
        "How many of the text encoder's last layers to skip, counted as in diffusers.",
        kind=int,
        bounds=(0, 1000),
        group=Group.PROMPTS,
        option=Option(("--clip-skip",)),
        # A1111 counts the last layer as 1, diffusers as 0.
        label=Label("Clip skip", read=SkipOfLabel.read, write=lambda skip: str(skip + 1)),
    )
