"""`sdrt generate`: the options and their help. `runner` does the work."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from sdrt.cli.completers import files
from sdrt.cli.generate.options import groups, image_options
from sdrt.cli.group import debug_option
from sdrt.cli.grouped_help import GroupedCommand
from sdrt.cli.settings import CONTEXT

__all__ = ["generate"]


@click.command(cls=GroupedCommand, groups=groups(), context_settings=CONTEXT)
@click.argument("prompts", metavar="PROMPT...", nargs=-1)
@click.option(
    "--prompts-file",
    metavar="FILE",
    shell_complete=files,
    help="Read prompts from a file, or from stdin with -. Each line is a prompt, or a JSON object with a prompt and "
    "settings that override the options.",
)
@click.option(
    "--from",
    "from_image",
    metavar="FILE|-",
    shell_complete=files,
    help="Make this image again, from its metadata, or from a text file with the same text. Options that you give "
    "override the metadata.",
)
@click.option(
    "--approximate",
    is_flag=True,
    help="With --from: make the image as closely as possible and say what differs, instead of refusing it.",
)
@image_options
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
    shell_complete=files,
    help="Write to this file or folder. A name may contain {seed} and {index}, and ends in .png, .jpg or .webp. "
    "- writes one PNG to standard output.  [default: sdrt-{seed}.png]",
)
@click.option("--grid", is_flag=True, help="Also write a contact sheet of all images, named FILE-grid.")
@click.option("--preview", is_flag=True, help="Show the images in the terminal while they are made.")
@click.option(
    "--preview-file",
    metavar="FILE",
    shell_complete=files,
    help="Write the unfinished images to this file while they are made.",
)
@click.option(
    "--preview-every",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    help="Update the preview after this many steps.",
)
@click.option(
    "--control-preview",
    metavar="FILE",
    shell_complete=files,
    help="Write what the ControlNets see to this file: the control images, scaled and preprocessed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print files, seeds, settings and timings as JSON.")
@debug_option
@click.pass_context
def generate(context: click.Context, /, from_image: str | None, approximate: bool, **options: Any) -> None:
    """Make images from a prompt.

    Put each PROMPT in quotes. In a prompt, {a|b} means either a or b, and __name__ means a line of the file name.txt
    (see --wildcards). The seed of each image decides which. The names of the files go to stdout, progress and notices
    to stderr.
    """
    from sdrt.cli.empty_names import refuse_empty_names
    from sdrt.cli.generate.jobs import Options
    from sdrt.cli.generate.runner import run
    from sdrt.cli.generate.streams import check_stdin

    refuse_empty_names()
    check_stdin({**options, "from_image": from_image})
    if from_image is not None:
        from sdrt.cli.generate.from_metadata import options_of

        # Some versions of click report a missing argument as given, with an empty value.
        given = {
            name
            for name in options
            if options[name] != () and context.get_parameter_source(name) is not ParameterSource.DEFAULT
        }
        options |= options_of(
            from_image,
            given,
            approximate=approximate,
            lora_dir=options["lora_dir"],
            control_images=len(options["control_image"] or ()),
        )
    elif approximate:
        raise click.UsageError("--approximate has no effect without --from", context)
    sources = [name for name in ("prompts", "prompts_file") if options[name]]
    if not sources:
        raise click.UsageError("Missing argument 'PROMPT...'", context)
    if len(sources) > 1:
        raise click.UsageError("expected PROMPT... or --prompts-file, got both", context)
    run(Options.from_parameters(options))
