"""`sdrt plot`: a sheet of images that compares settings."""

from __future__ import annotations

from typing import Any

import click

from sdrt.cli.completers import axes, files
from sdrt.cli.generate.options import groups, image_options
from sdrt.cli.group import debug_option
from sdrt.cli.grouped_help import GroupedCommand
from sdrt.cli.settings import CONTEXT

__all__ = ["plot"]


@click.command(cls=GroupedCommand, groups=groups(), context_settings=CONTEXT)
@click.argument("prompt", required=True)
@click.option(
    "-x",
    metavar="SETTING=A,B,C",
    required=True,
    shell_complete=axes,
    help="Vary a setting from left to right, such as steps=5,10,20.",
)
@click.option("-y", metavar="SETTING=A,B,C", shell_complete=axes, help="Vary a setting from top to bottom.")
@click.option(
    "-z", metavar="SETTING=A,B,C", shell_complete=axes, help="Vary a setting between groups of rows."
)
@image_options
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    shell_complete=files,
    help="Write the sheet to this file. Its name ends in .png, .jpg or .webp.  [default: sdrt-plot-{seed}.png]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the file, seeds, settings and timings as JSON.")
@debug_option
def plot(prompt: str, x: str, y: str | None, z: str | None, **options: Any) -> None:
    """Make a sheet of images that compares one, two or three settings.

    SETTING is one of prompt, negative_prompt, seed, steps, guidance_scale, scheduler, spacing, width,
    height, strength and so on. Put a value that contains a comma in quotes. Numbers may be ranges, such as 10-30:5 or
    A1111's 10-30 (+5) and 1-10 [5]. All images have the same seed, unless you vary the seed.
    """
    from sdrt.cli.empty_names import refuse_empty_names
    from sdrt.cli.generate.jobs import Options
    from sdrt.cli.generate.runner import run_plot
    from sdrt.cli.generate.variations import parse_axis

    refuse_empty_names()
    axes = [parse_axis(text) for text in (x, y, z) if text is not None]
    names = [axis.key for axis in axes]
    if twice := [name for name in names if names.count(name) > 1]:
        raise click.UsageError(f"{twice[0]} is given to two axes: expected different settings")
    run_plot(
        Options.from_parameters(
            {**options, "prompts": (prompt,), "prompts_file": None, "batch_size": 1, "count": 1, "grid": True}
        ),
        axes,
    )
