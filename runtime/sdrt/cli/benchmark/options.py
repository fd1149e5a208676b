"""The options of `sdrt benchmark`: lists of what to measure, and files to write."""

from __future__ import annotations

from collections.abc import Sequence

import click

from sdrt.cli.checkpoint_options import CHECKPOINT_OPTIONS, MODEL_HELP, model_option
from sdrt.cli.group import force_option
from sdrt.cli.param_types import Names, Numbers, Sizes
from sdrt.cli.provider_options import RUN_OPTIONS
from sdrt.cli.settings import Decorator, together

__all__ = ["benchmark_options"]

_OPTIONS: Sequence[Decorator] = (
    click.option(
        "--compare",
        is_flag=True,
        help="Measure nothing. Compare the records in FILE... with the first one.",
    ),
    model_option(MODEL_HELP),
    *CHECKPOINT_OPTIONS,
    click.option(
        "--random-weights",
        metavar="NAME",
        help="Measure an architecture, such as sd15, with random weights. They are as fast as trained ones.",
    ),
    click.option(
        "--size",
        "sizes",
        metavar="A,BxC,…",
        type=Sizes(),
        help="Sizes of the images in pixels.  [default: the model's]",
    ),
    click.option("-W", "--width", type=int, help="Width in pixels, instead of --size."),
    click.option("-H", "--height", type=int, help="Height in pixels, instead of --size."),
    click.option(
        "-b",
        "--batch",
        "--batch-size",
        "batches",
        metavar="A,B,…",
        type=Numbers(int),
        default="1",
        show_default=True,
        help="Images denoised at once.",
    ),
    click.option(
        "--scheduler",
        "--sampler",
        "schedulers",
        metavar="A,B,…",
        type=Names(),
        help="Schedulers.  [default: the model's]",
    ),
    click.option(
        "--provider",
        "--device",
        "providers",
        metavar="A,B,…",
        type=Names(),
        default="auto",
        show_default=True,
        help="Execution providers, such as cpu,cuda.",
    ),
    click.option(
        "--threads",
        metavar="A,B,…",
        type=Numbers(int),
        help="CPU threads, at most one per CPU.  [default: every core]",
    ),
    click.option(
        "--steps",
        "--num-inference-steps",
        "steps",
        type=int,
        default=20,
        show_default=True,
        help="Number of denoising steps.",
    ),
    click.option(
        "--guidance-scale",
        "--cfg-scale",
        "guidance_scale",
        type=float,
        help="How closely to follow the prompt. 1 or less halves the work of a step.  [default: the model's]",
    ),
    click.option("--spacing", metavar="NAME", help="Which noise levels the steps visit, such as karras."),
    *RUN_OPTIONS,
    click.option("--max-size", type=int, help="Allow images with sides of up to this many pixels."),
    click.option("--revision", help="Branch, tag or commit of a model on the hub."),
    click.option(
        "--precision",
        type=float,
        default=0.02,
        show_default=True,
        help="Measure until the interval of the median step is no wider than this share of the median.",
    ),
    click.option(
        "--time-limit",
        metavar="SECONDS",
        type=float,
        default=20.0,
        show_default=True,
        help="Stop measuring a configuration when this time has passed since its first generation.",
    ),
    click.option("--profile", is_flag=True, help="Also show where the time of a step goes, by operator."),
    click.option("--json", "json_file", metavar="FILE", help="Write the record, with every sample, to FILE."),
    click.option("--plot", "plot_file", metavar="FILE", help="Draw latency by size and batch (.png)."),
    click.option(
        "--timeline",
        "timeline_file",
        metavar="FILE",
        help="Draw one generation of the first configuration (.png).",
    ),
    click.option("--flame", "flame_file", metavar="FILE", help="Draw the profile (.png); implies --profile."),
    force_option,
    click.option("-q", "--quiet", is_flag=True, help="Print tables and errors only, no notices."),
)

benchmark_options = together(*_OPTIONS)
