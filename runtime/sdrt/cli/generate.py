"""`sdrt generate`: the options and their help. The work is in `generation`."""

from __future__ import annotations

from typing import Any

import click

from sdrt.embedded import DEFAULT_MODEL

from .group import CONTEXT, debug_option

__all__ = ["generate"]


@click.command(context_settings=CONTEXT)
@click.argument("prompts", metavar="PROMPT...", nargs=-1, required=True)
@click.option(
    "-m",
    "--model",
    metavar="MODEL",
    default=DEFAULT_MODEL,
    show_default=True,
    help="Model folder, hub id, or an embedded model; `sdrt models` lists them.",
)
@click.option("-n", "--negative-prompt", metavar="TEXT", default="", help="What the picture should not show.")
@click.option("--steps", "--num-inference-steps", "steps", type=int, default=50, show_default=True)
@click.option(
    "--guidance-scale",
    "--cfg-scale",
    "guidance_scale",
    type=float,
    default=7.5,
    show_default=True,
    help="How closely to follow the prompt; 1 or less ignores the negative prompt and takes half the time.",
)
@click.option("-W", "--width", type=int, help="Pixels, a multiple of 8.  [default: the model's]")
@click.option("-H", "--height", type=int, help="Pixels, a multiple of 8.  [default: the model's]")
@click.option("-s", "--seed", type=int, help="Picture i has seed + i.  [default: random, printed]")
@click.option("--scheduler", metavar="NAME|FILE", help="For example `euler`, or a scheduler_config.json.")
@click.option("--spacing", metavar="NAME", help="Which noise levels are visited, for example `karras`.")
@click.option("--eta", type=float, default=0.0, show_default=True, help="Noise that DDIM adds in each step.")
@click.option(
    "--clip-skip", type=int, help="Layers of the text encoder to leave out, counted as diffusers does."
)
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
@click.option("-f", "--force", is_flag=True, help="Overwrite existing files.")
@click.option("--no-metadata", is_flag=True, help="Leave out of the file how it was made.")
@click.option("--provider", default="auto", show_default=True, help="Execution provider: cpu, cuda, …")
@click.option("--allow-fallback", is_flag=True, help="Run on the CPU what the provider cannot.")
@click.option("--threads", type=int, help="CPU threads.  [default: every core]")
@click.option("--revision", help="Branch, tag or commit of a hub id.")
@click.option("--max-size", type=int, help="Allow sides up to this many pixels.")
@click.option("--json", "as_json", is_flag=True, help="Print files, seeds, settings and timings as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="No progress and no notices; errors only.")
@debug_option
def generate(prompts: tuple[str, ...], **options: Any) -> None:
    """Make pictures from a prompt.

    Each PROMPT is one argument: put it in quotes. The names of the files go to stdout,
    progress and notices to stderr.
    """
    from .generation import run
    from .planning import Options

    run(Options(prompts=prompts, **options))
