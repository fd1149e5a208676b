"""`sdrt plot`: one sheet of pictures over lists of settings."""

from __future__ import annotations

from typing import Any

import click

from sdrt.cli.generate.options import groups, picture_options
from sdrt.cli.group import CONTEXT, debug_option
from sdrt.cli.grouped_help import GroupedCommand

__all__ = ["plot"]


@click.command(cls=GroupedCommand, groups=groups(), context_settings=CONTEXT)
@click.argument("prompt", required=True)
@click.option(
    "-x", metavar="FIELD=A,B,C", required=True, help="Varied from left to right, for example steps=5,10,20."
)
@click.option("-y", metavar="FIELD=A,B,C", help="Varied from top to bottom.")
@click.option("-z", metavar="FIELD=A,B,C", help="Varied between groups of rows.")
@picture_options
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Name of the sheet; .png, .jpg or .webp.  [default: sdrt-plot-{seed}.png]",
)
@click.option("--json", "as_json", is_flag=True, help="Print file, seeds, settings and timings as JSON.")
@debug_option
def plot(prompt: str, x: str, y: str | None, z: str | None, **options: Any) -> None:
    """Make a sheet of images that compares two or three settings.

    FIELD is a key of a prompts file: prompt, negative_prompt, seed, steps, guidance_scale, scheduler, spacing, width,
    height, strength and so on. Put a value with a comma in quotes. All images share a seed, unless seed is a FIELD.
    """
    from sdrt.cli.generate.jobs import Options
    from sdrt.cli.generate.runner import run_plot
    from sdrt.cli.generate.variations import parse_axis

    axes = [parse_axis(text) for text in (x, y, z) if text is not None]
    names = [axis.key for axis in axes]
    if twice := [name for name in names if names.count(name) > 1]:
        raise click.UsageError(f"{twice[0]} is given to two axes: expected different fields")
    run_plot(
        Options.of(
            {**options, "prompts": (prompt,), "prompts_file": None, "batch_size": 1, "count": 1, "grid": True}
        ),
        axes,
    )
