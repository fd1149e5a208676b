"""`sdrt generate`: the options and their help. The work is in `generation`."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from sdrt.cli.generate.options import picture_options
from sdrt.cli.group import CONTEXT, debug_option

__all__ = ["generate"]


@click.command(context_settings=CONTEXT)
@click.argument("prompts", metavar="PROMPT...", nargs=-1)
@click.option(
    "--prompts-file",
    metavar="FILE",
    help="Prompts from a file, or - for stdin: one a line, or JSON objects of settings, which go before the options.",
)
@click.option(
    "--from",
    "from_picture",
    metavar="FILE",
    help="Make this picture again, as its metadata says; options given beside it go before.",
)
@picture_options
@click.option(
    "-b",
    "--batch-size",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="Pictures denoised at once.",
)
@click.option(
    "--count", type=click.IntRange(1, 10_000), help="Pictures per prompt.  [default: the batch size]"
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Name, folder, or pattern with {seed} and {index}; .png, .jpg or .webp.  [default: sdrt-{seed}.png]",
)
@click.option(
    "--grid", is_flag=True, help="Also write a contact sheet of all pictures, beside the first: FILE-grid."
)
@click.option("--preview", is_flag=True, help="Draw what the pictures are at in the terminal.")
@click.option("--preview-file", metavar="FILE", help="Write what they are at to a file, again and again.")
@click.option(
    "--preview-every",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    help="Steps between two previews.",
)
@click.option("--json", "as_json", is_flag=True, help="Print files, seeds, settings and timings as JSON.")
@debug_option
@click.pass_context
def generate(context: click.Context, /, from_picture: str | None, **options: Any) -> None:
    """Make pictures from a prompt.

    Each PROMPT is one argument: put it in quotes. Of {a|b} each picture takes one, by its seed. The names of the
    files go to stdout, progress and notices to stderr.
    """
    from sdrt.cli.generate.jobs import Options
    from sdrt.cli.generate.runner import run

    if from_picture is not None:
        from sdrt.cli.generate.from_metadata import settings_of

        # Some versions of click take an argument that is not there for given.
        given = {
            name
            for name in options
            if options[name] != () and context.get_parameter_source(name) is not ParameterSource.DEFAULT
        }
        options |= settings_of(from_picture, given)
    sources = [name for name in ("prompts", "prompts_file") if options[name]]
    if not sources:
        raise click.UsageError("Missing argument 'PROMPT...'", context)
    if len(sources) > 1:
        raise click.UsageError("expected PROMPT... or --prompts-file, got both", context)
    run(Options(**options))
