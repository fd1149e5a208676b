"""`sdrt export`: turns a checkpoint into a model folder. `sdrt_export` does the work."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdrt.cli import completers
from sdrt.cli.checkpoint_options import beside_options
from sdrt.cli.empty_names import refuse_empty_names
from sdrt.cli.generate.terminal import Terminal
from sdrt.cli.generate.variations import read_prompts_file
from sdrt.cli.group import debug_option
from sdrt.cli.models.summary import human_size
from sdrt.cli.settings import CONTEXT
from sdrt.cli.tuning import tune_model
from sdrt.common.extras import EXTRAS, install_command
from sdrt.common.progress import Board, export_reporter
from sdrt.errors import ExportError, RequestError

if TYPE_CHECKING:
    from sdrt.model_folder.folder import Manifest

__all__ = ["export"]

DEFAULT_TARGETS = {"sdrt": "cpu", "optimum": "portable"}


@click.command(context_settings=CONTEXT)
@click.argument("source", required=False, shell_complete=completers.files)
@click.option(
    "-o", "--output", metavar="DIR", required=True, shell_complete=completers.files, help="Folder to write."
)
@click.option(
    "--target",
    type=click.Choice(["cpu", "cuda", "portable"]),
    help="cpu, cuda: fused operators for that provider of ONNX Runtime. portable: standard ONNX operators only."
    "  [default: cpu; portable with --exporter optimum]",
)
@click.option(
    "--dtype",
    type=click.Choice(["auto", "fp32", "fp16", "int8"]),
    default="auto",
    show_default=True,
    help="auto: fp16 for cuda, else fp32. fp16: weights in half the bytes; the CPU widens them at load and computes in "
    "fp32. int8: for CPUs; the U-Net and the VAE run in 8 bits, and text encoders store their weights in 8 bits.",
)
@click.option(
    "--calibration-prompts",
    metavar="FILE",
    shell_complete=completers.files,
    help="With --dtype int8: prompts to calibrate with, one a line. The last one measures the errors.",
)
@click.option(
    "--exporter",
    type=click.Choice(["sdrt", "optimum"]),
    default="sdrt",
    show_default=True,
    help="optimum: a slower fallback for checkpoints that sdrt's exporter cannot export.",
)
@click.option(
    "--architecture",
    metavar="NAME",
    help="Architecture for --random-weights, such as sd15. `sdrt models --architectures` lists them.",
)
@click.option(
    "--random-weights",
    metavar="SEED",
    type=int,
    help="Use random weights instead of a checkpoint, to measure a device without a download.",
)
@click.option(
    "--guidance-scale",
    type=float,
    help="The model's default guidance.  [default: that of a known few-step model, else diffusers']",
)
@click.option(
    "--steps",
    "num_inference_steps",
    type=int,
    help="The model's default number of steps.  [default: that of a known few-step model, else 50]",
)
@click.option(
    "--taesd",
    metavar="FOLDER|ID",
    help="Add a TAESD, such as madebyollin/taesd, for previews that look like the images.",
)
@beside_options
@click.option(
    "--no-safety-checker",
    "safety_checker",
    is_flag=True,
    callback=lambda _context, _option, given: not given,
    help="Leave out the checkpoint's safety checker, which takes 1.2 GB. Nothing filters the images then.",
)
@click.option("--revision", help="Branch, tag or commit of a checkpoint on the hub.")
@click.option("--token", help="Access token of the hub.  [default: what huggingface_hub finds]")
@click.option(
    "--verify",
    is_flag=True,
    help="Compare each component with torch before the folder appears. This needs the extra verify.",
)
@click.option(
    "--tune",
    is_flag=True,
    help="Then tune the model for this machine's CPU, as `sdrt tune` does: it loads at once.",
)
@click.option("-f", "--force", is_flag=True, help="Replace an existing folder when the new one is complete.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only, no progress.")
@debug_option
def export(
    source: str | None, output: str, random_weights: int | None, tune: bool, quiet: bool, **options: Any
) -> None:
    """Turn a checkpoint into a model folder of ONNX graphs.

    SOURCE is a diffusers folder, a single .safetensors file, a hub id, or a file on the hub
    (owner/name/file.safetensors, or its address). The model folder appears when it is complete. An old folder stays
    until then. The path of the model folder goes to stdout.
    """
    refuse_empty_names()
    if (source is None) == (random_weights is None):
        fits = "a SOURCE (a diffusers folder, a single file or a hub id), or --random-weights with no SOURCE"
        raise RequestError(f"expected {fits}", argument="SOURCE", fits=fits)
    if source == "":
        raise RequestError.expected(
            "SOURCE is ''", "a diffusers folder, a single file or a hub id", argument="SOURCE"
        )
    if tune and options["target"] == "cuda":
        fits = "--target cpu or portable, because models are tuned for the CPU"
        raise RequestError.expected("--tune is given with --target cuda", fits, argument="--tune")
    started = time.perf_counter()
    terminal = Terminal(quiet=quiet)
    with terminal.board() as board:
        manifest = _export(
            source, Path(output), board, random_weights=random_weights, notify=terminal.notice, **options
        )
    size = human_size(sum(record.size for record in manifest.files.values()))
    terminal.notice(f"exported {size} in {time.perf_counter() - started:.0f} s")
    terminal.result(Path(output))
    if tune:
        tune_model(output, terminal)


def _export(
    source: str | None,
    output: Path,
    board: Board,
    target: str | None,
    calibration_prompts: str | None,
    **options: Any,
) -> Manifest:
    prompts = None if calibration_prompts is None else _prompts(calibration_prompts)
    try:
        from sdrt.model_folder.exporter import load_exporter

        export_model = load_exporter().export_model

        target = target or DEFAULT_TARGETS[options["exporter"]]
        return export_model(
            source,
            output,
            target=target,
            calibration_prompts=prompts,
            reporter=export_reporter(board),
            **options,
        )
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRAS:
            raise
        raise ExportError.advised(
            f"exporting needs {missing}, which is not installed; run", install_command(EXTRAS[missing])
        ) from error


def _prompts(name: str) -> list[str]:
    entries = read_prompts_file(name, option="--calibration-prompts")
    for entry in entries:
        if entry.settings:
            raise RequestError.expected(
                f"{entry.line.location} has {', '.join(entry.line.keys[name] for name in entry.settings)}",
                "only prompts to calibrate with",
                argument="--calibration-prompts",
                path=Path(name),
            )
    return [entry.prompt for entry in entries]
