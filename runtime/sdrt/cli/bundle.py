"""`sdrt bundle`: writes a model and a plan of its steps, for programs in other languages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from sdrt.cli import completers
from sdrt.cli.empty_names import refuse_empty_names
from sdrt.cli.generate.terminal import Terminal
from sdrt.cli.group import debug_option
from sdrt.cli.models.summary import human_size
from sdrt.cli.settings import CONTEXT
from sdrt.cli.static_page import show_page

__all__ = ["bundle"]


@click.command(context_settings=CONTEXT)
@click.argument("model", required=False, shell_complete=completers.models)
@click.option("-o", "--output", metavar="DIR", shell_complete=completers.files, help="Folder to write.")
@click.option("--steps", "num_inference_steps", type=int, help="Number of steps.  [default: the model's]")
@click.option("--scheduler", shell_complete=completers.schedulers, help="Scheduler.  [default: the model's]")
@click.option("--spacing", help="How the noise levels are spaced.  [default: the scheduler's]")
@click.option("--guidance-scale", type=float, help="Guidance scale.  [default: the model's]")
@click.option("--width", type=int, help="Width in pixels.  [default: the model's]")
@click.option("--height", type=int, help="Height in pixels.  [default: the model's]")
@click.option(
    "--max-size", type=int, help="Allow sides of up to this many pixels.  [default: as in sdrt generate]"
)
@click.option("--eta", type=float, default=0.0, show_default=True, help="Share of fresh noise, for DDIM.")
@click.option(
    "--web",
    is_flag=True,
    help="Add a page for browsers, and download ONNX Runtime for it from the npm registry (41 MB).",
)
@click.option(
    "--show",
    metavar="DIR",
    shell_complete=completers.files,
    help="Serve the page of a bundle to the browsers of this machine, instead of writing one.",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), help="With --show: the port. 0 for any.  [default: 8000]"
)
@click.option("-f", "--force", is_flag=True, help="Replace an existing folder when the new one is complete.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@debug_option
def bundle(
    model: str | None, output: str | None, show: str | None, port: int | None, quiet: bool, **options: Any
) -> None:
    """Write what a program without Python needs to make images.

    MODEL is a model folder, or an embedded model. The bundle has its graphs, its tokenizer, a plan of the steps as
    JSON, and a graph that does what a scheduler and guidance do. A program runs it with ONNX Runtime for its language,
    in a loop of five lines, and gets the same image for the same seed. sdrt.mjs does so in JavaScript. docs/bundle.md
    describes all files. The path of the folder goes to stdout.

    With --web, the bundle also has a page that makes images in the browser. To open it, run sdrt bundle --show DIR and
    visit the address that it prints.
    """
    refuse_empty_names()
    terminal = Terminal(quiet=quiet)
    if show is not None:
        _refuse_others()
        show_page(Path(show), 8000 if port is None else port, terminal)
        return
    if model is None or output is None:
        raise click.UsageError("expected MODEL and --output DIR, or --show DIR")
    if port is not None:
        raise click.UsageError("--port applies to --show: add --show DIR")
    from sdrt.model_folder.exporter import load_exporter

    folder = load_exporter("bundles").write_bundle(model, Path(output), notify=terminal.notice, **options)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    terminal.notice(f"bundled {human_size(size)}")
    terminal.result(folder)


def _refuse_others() -> None:
    """Raise `UsageError` for an argument that has no effect beside --show."""
    context = click.get_current_context()
    for one in context.command.params:
        is_given = context.get_parameter_source(one.name or "") is ParameterSource.COMMANDLINE
        if is_given and one.name not in ("show", "port", "quiet", "debug"):
            name = "MODEL" if isinstance(one, click.Argument) else one.opts[-1]
            raise click.UsageError(f"--show takes no {name}: leave it out")
