"""The options that choose the model of a command: `--model`, and what can be given with a torch checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

import click

from sdrt.cli import completers
from sdrt.cli.settings import Decorator, together
from sdrt.model_folder.embedded import DEFAULT_MODEL

__all__ = ["BESIDE", "CHECKPOINT_OPTIONS", "MODEL_HELP", "beside_options", "model_option"]

BESIDE = ("vae", "text_encoders", "prediction_type", "config", "controlnet", "ip_adapter", "image_encoder")
"""The options by parameter name."""

CHECKPOINT_OPTIONS: Sequence[Decorator] = (
    click.option(
        "--vae",
        metavar="FILE|FOLDER|ID",
        shell_complete=completers.files,
        help="Use this VAE in place of the checkpoint's.",
    ),
    click.option(
        "--text-encoder",
        "text_encoders",
        metavar="FILE",
        multiple=True,
        shell_complete=completers.files,
        help="Use this text encoder in place of the single file's. SDXL takes two.",
    ),
    click.option(
        "--prediction-type",
        type=click.Choice(["epsilon", "v_prediction"]),
        help="What the U-Net of a single file predicts. Stable Diffusion 2 needs it if the file does not say it.",
    ),
    click.option(
        "--config",
        metavar="FOLDER|ID",
        shell_complete=completers.folders,
        help="A model in diffusers' layout whose configs fit the single file, if its architecture is unusual.",
    ),
    click.option(
        "--controlnet",
        metavar="FILE|FOLDER|ID",
        multiple=True,
        shell_complete=completers.files,
        help="Add a ControlNet or T2I-Adapter, which lets a second image guide the model. Repeat the option for "
        "several.",
    ),
    click.option(
        "--ip-adapter",
        metavar="FILE|ID",
        multiple=True,
        shell_complete=completers.files,
        help="Add an IP-Adapter, which lets the model see an image as a prompt. Repeat the option for several.",
    ),
    click.option(
        "--image-encoder",
        metavar="FILE|FOLDER",
        shell_complete=completers.files,
        help="CLIP's vision encoder for the IP-Adapters.  [default: the model's, or image_encoder beside the adapter]",
    ),
)


MODEL_HELP = (
    "Model folder, checkpoint (a .safetensors file or a diffusers folder), hub id of either, or name of an "
    "embedded model."
)


def model_option(about: str) -> Decorator:
    """The option `--model`. `about` is its help."""
    return click.option(
        "-m",
        "--model",
        metavar="MODEL",
        default=DEFAULT_MODEL,
        show_default=True,
        shell_complete=completers.models,
        help=about,
    )


beside_options = together(*CHECKPOINT_OPTIONS)
"""Adds these options to a command."""
