"""The options that go with a torch checkpoint, for every command that opens one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from sdrt.cli import completers

__all__ = ["BESIDE", "CHECKPOINT_OPTIONS", "SPELLINGS", "beside_options"]

SPELLINGS: Mapping[str, str] = {
    "vae": "--vae",
    "text_encoders": "--text-encoder",
    "prediction_type": "--prediction-type",
    "config": "--config",
    "refiner": "--refiner",
    "refiner_prediction_type": "--refiner-prediction-type",
    "refiner_config": "--refiner-config",
    "taesd": "--taesd",
}
"""The options for the arguments of Python that name a model or a part of one. Their errors begin with these."""
BESIDE = ("vae", "text_encoders", "prediction_type", "config")
"""The options by parameter name."""

CHECKPOINT_OPTIONS: Sequence[Callable[[Callable[..., Any]], Callable[..., Any]]] = (
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
)


def beside_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with these options."""
    for option in reversed(CHECKPOINT_OPTIONS):
        command = option(command)
    return command
