"""`sdrt generate`: the options and their help. The work is in `runner`."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from sdrt.cli.generate.options import groups, picture_options
from sdrt.cli.group import CONTEXT, debug_option
from sdrt.cli.grouped_help import GroupedCommand

__all__ = ["generate"]


@click.command(cls=GroupedCommand, groups=groups(), context_settings=CONTEXT)
@click.argument("prompts", metavar="PROMPT...", nargs=-1)
@click.option(
    "--prompts-file",
    metavar="FILE",
    help="Read prompts from a file, or from stdin with -: one per line, or JSON objects whose settings override the "
    "options.",
)
@click.option(
    "--from",
    "from_picture",
    metavar="FILE",
    help="Make this image again from its metadata. Options that you give override it.",
)
@picture_options
@click.option(
    "-b",
    "--batch-size",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="How many images to denoise at once.",
)
@click.option("--count", type=click.IntRange(1, 10_000), help="Images per prompt.  [default: the batch size]")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="File, folder, or a pattern with {seed} and {index}: .png, .jpg or .webp.  [default: sdrt-{seed}.png]",
)
@click.option("--grid", is_flag=True, help="Also write one sheet with all images, named FILE-grid.")
@click.option("--preview", is_flag=True, help="Show the images in the terminal while they are made.")
@click.option(
    "--preview-file", metavar="FILE", help="Write the unfinished images to this file while they are made."
)
@click.option(
    "--preview-every",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    help="Update the preview every so many steps.",
)
@click.option("--json", "as_json", is_flag=True, help="Print files, seeds, settings and timings as JSON.")
@debug_option
@click.pass_context
def generate(context: click.Context, /, from_picture: str | None, **options: Any) -> None:
    """Make images from a prompt.

    Put each PROMPT in quotes. Where a prompt says {a|b}, the seed decides which one an image gets. File names go to
    stdout; progress and notices go to stderr.
    """
    from sdrt.cli.generate.jobs import Options
    from sdrt.cli.generate.runner import run

    if from_picture is not None:
        from sdrt.cli.generate.from_metadata import options_of

        # Some versions of click take an argument that is not there for given.
        given = {
            name
            for name in options
            if options[name] != () and context.get_parameter_source(name) is not ParameterSource.DEFAULT
        }
        options |= options_of(from_picture, given)
    sources = [name for name in ("prompts", "prompts_file") if options[name]]
    if not sources:
        raise click.UsageError("Missing argument 'PROMPT...'", context)
    if len(sources) > 1:
        raise click.UsageError("expected PROMPT... or --prompts-file, got both", context)
    run(Options.of(options))
