"""`python -m benchmarks COMMAND`: each command is a module of this package, imported when the command runs."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

GPU_SCRIPT = Path(__file__).with_name("gpu.sh")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A module whose `main` takes the arguments. `first` are put before those of the user."""

    module: str
    help: str
    first: tuple[str, ...] = ()


ENTRIES: Mapping[str, Entry] = {
    "browser": Entry(module="browser", help="Compare a bundle in the browser with sdrt on the same cores."),
    "chart": Entry(module="chart", help="Draw seconds per step and peak memory."),
    "check": Entry(module="requirements", help="Say what this machine lacks."),
    "choices": Entry(module="choices", help="Compare other settings of the session."),
    "control": Entry(module="control", help="Compare a step with a ControlNet with both parts alone."),
    "direct": Entry(
        module="direct", help="Compare a checkpoint that runs directly with its exported folder."
    ),
    "export": Entry(module="export", help="Compare sdrt's export with 0.1.0's and optimum's."),
    "int8": Entry(module="int8", help="Compare int8 with float32 and OpenVINO."),
    "int8-attention": Entry(module="int8_attention", help="Compare attention in int8 with float32."),
    "kernels": Entry(module="kernels", help="List the GPU kernels of a step by time."),
    "lora": Entry(module="lora", help="Compare changing a LoRA with loading the U-Net anew."),
    "peak": Entry(module="peak", help="Measure matrix multiplication alone."),
    "peers": Entry(module="peers", help="Compare sdrt with other systems, in turns."),
    "prepare": Entry(module="peers", first=("--prepare",), help="Make only the folders that `peers` loads."),
    "processes": Entry(
        module="processes", help="Compare the memory of processes that share a model with one's."
    ),
    "remove-paths": Entry(module="remove_paths", help="Remove a machine's paths from records."),
    "run": Entry(module="run", help="Run export and peers; update the tables in docs."),
    "serve": Entry(module="serve", help="Compare the server with the pipeline alone."),
    "start": Entry(module="start", help="Compare how soon the first image is there, tuned and untuned."),
    "step-graph": Entry(module="step_graph", help="Compare a graph for the rest of a step with NumPy."),
}


class Passing(click.Command):
    """A command that passes on every argument unchanged, including `--help` and `--`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.params["arguments"] = tuple(args)
        return []


class Commands(click.Group):
    """`gpu` and the rows of `ENTRIES`. The module of each row parses its own arguments."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *ENTRIES])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = ENTRIES.get(cmd_name)
        return super().get_command(ctx, cmd_name) if entry is None else _command(cmd_name, entry)


def _command(name: str, entry: Entry) -> click.Command:
    def run(arguments: tuple[str, ...]) -> None:
        importlib.import_module(f"benchmarks.{entry.module}").main([*entry.first, *arguments])

    return Passing(name, callback=run, help=entry.help)


@click.group(cls=Commands)
def main() -> None:
    """Compare sdrt with other systems. `COMMAND --help` shows the options of a command."""


@main.command(cls=Passing)
def gpu(arguments: tuple[str, ...]) -> None:
    """Run the stages of gpu.sh on a GPU machine."""
    done = subprocess.run(["bash", str(GPU_SCRIPT), "--python", sys.executable, *arguments], check=False)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
