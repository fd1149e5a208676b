"""`sdrt batch`: the options and their help. `runner` does the work."""

from __future__ import annotations

from typing import Any

import click

from sdrt.batch.names import DEFAULT_PATTERN
from sdrt.cli.completers import files, folders
from sdrt.cli.generate.options import groups, image_options
from sdrt.cli.group import debug_option
from sdrt.cli.grouped_help import GroupedCommand
from sdrt.cli.ray_options import cpus_per_worker_option, gpus_per_worker_option
from sdrt.cli.settings import CONTEXT
from sdrt.request.setting import Group

__all__ = ["batch"]


def _groups() -> dict[str, tuple[str, ...]]:
    """The headings of `sdrt generate`, after one for what only this command has."""
    others = {name: rows for name, rows in groups().items() if name not in (Group.MANY, "Previews")}
    return {
        "The table and its images": ("output", "name", "batch_size", "force", "wildcards"),
        "Where it runs": ("workers", "ray", "cpus_per_worker", "gpus_per_worker"),
        **others,
    }


@click.command(cls=GroupedCommand, groups=_groups(), context_settings=CONTEXT)
@click.argument("table", metavar="INPUT", shell_complete=files)
@image_options
@click.option(
    "-o",
    "--output",
    metavar="FOLDER",
    required=True,
    shell_complete=folders,
    help="Write the images and their index into this folder. It is made if it is missing.",
)
@click.option(
    "--name",
    metavar="PATTERN",
    default=DEFAULT_PATTERN,
    show_default=True,
    help="The names of the images. {row} is the row's number, counted from 0, and {seed} its seed. Names end in .png, "
    ".jpg or .webp.",
)
@click.option(
    "-b",
    "--batch-size",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="How many rows of the same settings to denoise at once, which is faster on GPUs.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 4096),
    default=1,
    show_default=True,
    help="Processes that make images. On this machine's CPU they share its cores.",
)
@click.option(
    "--ray",
    metavar="ADDRESS|local",
    help="Run the workers on the Ray cluster of this address, or on this machine as a cluster (local).",
)
@cpus_per_worker_option
@gpus_per_worker_option
@click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
@debug_option
def batch(table: str, **options: Any) -> None:
    """Make the images of a table of prompts.

    INPUT is a .jsonl file with an object in each line, a .parquet file, or a .txt file with a prompt in each line. Keys
    and columns are settings, such as prompt, seed and steps, and override the options. A row may have an id.

    Run the command again to make what is missing: images that are there, whole, and of the same settings and model
    stay. A row that fails has its error in the index, and the others go on. The exit code is 1 if a row failed.

    \b
    sdrt batch prompts.jsonl -o out/
    sdrt batch prompts.parquet -o out/ --workers 2
    sdrt batch prompts.parquet -o out/ --ray auto --workers 8 --gpus-per-worker 1
    """
    from sdrt.cli.batch.runner import Options, run
    from sdrt.cli.empty_names import refuse_empty_names

    refuse_empty_names()
    run(Options.from_parameters(table, options))
