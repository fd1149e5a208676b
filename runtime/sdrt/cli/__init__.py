"""The `sdrt` command.

Importing this package loads click and nothing heavier; each command imports what it needs when it runs.
"""

from __future__ import annotations

import click

from sdrt.cli.group import LazyGroup
from sdrt.cli.settings import CONTEXT

__all__ = ["main"]

EXIT_CODES = """\b
Exit codes:
  0    done
  1    another failure: a file could not be written, rows of `sdrt batch` failed, or
       there is a bug in sdrt
  2    usage: an option, a prompt or an output file is not acceptable
  3    model: missing, damaged, unsupported, or impossible to export
  4    provider: ONNX Runtime or an execution provider is missing
  5    out of memory
  130  interrupted
  143  terminated
"""


def _print_version(context: click.Context, _: click.Parameter, given: bool) -> None:
    if given and not context.resilient_parsing:
        from sdrt.common.version import __version__

        click.echo(f"sdrt {__version__}")
        context.exit()


@click.group(
    cls=LazyGroup,
    commands_table={
        "generate": ("generate.command", "Make images from a prompt."),
        "batch": ("batch.command", "Make the images of a table of prompts, also on many machines."),
        "serve": ("serve", "Make images for programs and browsers, over HTTP."),
        "plot": ("generate.plot", "Make a sheet of images that compares settings."),
        "export": ("export", "Turn a checkpoint into a model folder of ONNX graphs."),
        "bundle": ("bundle", "Write what a program in another language needs to make images."),
        "tune": ("tune", "Prepare a model for this machine's CPU, so that it loads at once."),
        "models": ("models.command", "List the models that need no download."),
        "benchmark": ("benchmark.command", "Measure a model on this machine, or compare two measurements."),
        "schedulers": ("schedulers", "List the schedulers and spacings."),
        "info": ("models.info", "Show how an image was made, or what a model folder holds."),
        "doctor": ("doctor.command", "Check this installation and say how to fix it."),
        "completion": ("completion", "Print a completion script for bash, zsh or fish."),
        "help": ("help", "Show the help of a command."),
    },
    context_settings=CONTEXT,
    invoke_without_command=True,
    epilog=EXIT_CODES,
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show the version and exit.",
)
@click.pass_context
def main(context: click.Context) -> None:
    """Stable Diffusion with NumPy and ONNX Runtime: export a checkpoint once, then serve it without torch.

    \b
    sdrt generate "a red circle" -o circle.png
    sdrt export CHECKPOINT -o model/
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
