"""`sdrt benchmark`: the command. `options` has its options, and `runner` does the work."""

from __future__ import annotations

from typing import Any

import click
from click.core import ParameterSource

from sdrt.cli.benchmark.options import benchmark_options
from sdrt.cli.completers import files
from sdrt.cli.group import debug_option
from sdrt.cli.settings import CONTEXT

__all__ = ["benchmark"]

_COMPARE_OPTIONS = ("compare", "files", "json_file", "force", "quiet")


@click.command(context_settings=CONTEXT)
@click.argument("files", metavar="[FILE]...", nargs=-1, shell_complete=files)
@benchmark_options
@debug_option
@click.pass_context
def benchmark(context: click.Context, /, compare: bool, files: tuple[str, ...], **options: Any) -> None:
    """Measure a model on this machine, or compare two measurements.

    sdrt measures every combination of the lists, each in its own processes: the latency of a step and its parts, text
    encoding, decoding, loading, the first image from the start of a process, and memory. The tables go to stdout.

    \b
    sdrt benchmark
    sdrt benchmark --random-weights sd15 --size 512,768 --batch 1,2 --json here.json
    sdrt benchmark --compare before.json after.json
    """
    from sdrt.cli.benchmark.runner import run, run_compare

    if not compare:
        if files:
            raise click.UsageError(f"unexpected {files[0]!r}: only --compare takes files", context)
        run(**options)
        return
    if len(files) < 2:
        raise click.UsageError(
            f"--compare: expected two or more files from --json, got {len(files)}", context
        )
    given = [
        next(name for name in parameter.opts if name.startswith("--"))
        for parameter in context.command.params
        if parameter.name in options
        and parameter.name not in _COMPARE_OPTIONS
        and context.get_parameter_source(parameter.name) is not ParameterSource.DEFAULT
    ]
    if given:
        raise click.UsageError(f"--compare measures nothing: leave out {given[0]}", context)
    run_compare(files, json_file=options["json_file"], force=options["force"], quiet=options["quiet"])
