"""`--provider` and related options, for every command that runs a model."""

from __future__ import annotations

from collections.abc import Sequence

import click

from sdrt.cli import completers

__all__ = [
    "RUN_OPTIONS",
    "allow_fallback_option",
    "provider_library_option",
    "provider_option",
    "provider_options_option",
    "tune_option",
]


def _pairs(context: click.Context, parameter: click.Parameter, given: Sequence[str]) -> dict[str, str]:
    """Parse the values of a repeated option `KEY=VALUE`."""
    pairs: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not (key and equals):
            raise click.BadParameter(f"expected KEY=VALUE, got {text!r}", context, parameter)
        if key in pairs:
            raise click.BadParameter(f"{key} is given twice", context, parameter)
        pairs[key] = value
    return pairs


provider_option = click.option(
    "--provider",
    "--device",
    "provider",
    default="auto",
    show_default=True,
    shell_complete=completers.providers,
    help="Execution provider: auto, cpu, cuda, cuda:1, tensorrt, openvino, webgpu, coreml, tensorrt-rtx or mlx. auto "
    "is cuda where it works, else cpu.",
)
provider_options_option = click.option(
    "--provider-option",
    "provider_options",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_pairs,
    help="An option of the provider, such as gpu_mem_limit=6GB (cuda, tensorrt) or precision=bf16 (openvino). "
    "Can be repeated. The error for an unknown KEY lists the known ones.",
)
provider_library_option = click.option(
    "--provider-library",
    metavar="FILE|PACKAGE",
    help="A library of execution providers for ONNX Runtime, or an installed package that has one, such as "
    "onnxruntime-ep-webgpu. --provider chooses one of its providers. It can be ONNX Runtime's name, such as "
    "ACMEExecutionProvider.  [default: the package for the provider, if ONNX Runtime itself does not have it]",
)
allow_fallback_option = click.option(
    "--allow-fallback", is_flag=True, help="Let the CPU run what the provider cannot run."
)
RUN_OPTIONS = (
    provider_options_option,
    provider_library_option,
    allow_fallback_option,
    click.option(
        "--vae-tiling/--no-vae-tiling",
        default=None,
        help="Encode and decode images in tiles, which takes less memory.  "
        "[default: for images above 1024x1024 pixels]",
    ),
    click.option(
        "--low-vram/--no-low-vram",
        default=None,
        help="Use as little memory as possible, which takes more time: keep one component in memory at a time, call "
        "the U-Net twice for guidance, and run the VAE in tiles.  [default: after memory has run out]",
    ),
)
"""What every command that runs a model has beside `--provider`."""
tune_option = click.option(
    "--tune/--no-tune",
    default=None,
    help="On the CPU, tune the model for this machine first, as `sdrt tune` does. With --no-tune, do not use what was "
    "tuned.  [default: use it]",
)
