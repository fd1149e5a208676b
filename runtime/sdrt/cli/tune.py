"""`sdrt tune`: prepares models for this machine's CPU, and lists and removes what was prepared."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from sdrt.cli.checkpoint_options import beside_options, model_option
from sdrt.cli.echo import echo, echo_json
from sdrt.cli.generate.terminal import Terminal
from sdrt.cli.group import debug_option
from sdrt.cli.models.summary import human_size
from sdrt.cli.settings import CONTEXT
from sdrt.cli.tables import columns
from sdrt.cli.tuning import count, size_of, tune_model
from sdrt.errors import RequestError, SdrtError

if TYPE_CHECKING:
    from sdrt.onnx.tuned import TunedGraph

__all__ = ["tune"]

HEADINGS = ("graph", "size", "last used", "of")


@click.command(context_settings=CONTEXT)
@model_option("Model folder, checkpoint, hub id or embedded model to tune.")
@beside_options
@click.option("--revision", help="Branch, tag or commit of a model on the hub.")
@click.option("--vae-tiling", is_flag=True, help="Also tune the VAE that works in tiles.")
@click.option("--list", "as_list", is_flag=True, help="List the tuned graphs instead, the last used first.")
@click.option("--clear", is_flag=True, help="Remove all tuned graphs instead, of every model.")
@click.option("--json", "as_json", is_flag=True, help="With --list, print one JSON object.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only, no progress.")
@debug_option
def tune(model: str, as_list: bool, clear: bool, as_json: bool, quiet: bool, **options: Any) -> None:
    """Prepare a model for this machine's CPU, so that it loads at once.

    ONNX Runtime optimizes each graph and rearranges its weights for the CPU whenever it loads a model. This command
    does so once, and keeps the result in the cache. From then on, every command and pipeline loads it from there:
    in a fraction of the time, and processes share its memory. Images stay the same.

    A tuned model takes a third more disk than its weights in float32 (Stable Diffusion 1.5: 5.5 GB). All tuned graphs
    together take at most 50 GB: when a new one needs the space, those that were used longest ago are removed. Tune a
    model again when it has changed, and with another version of onnxruntime or another kind of CPU.

    With ControlNets, T2I-Adapters or IP-Adapters, in the model or by an option, there is a second graph of the U-Net
    for them, which takes as much again. It is for calls that use all of them.
    """
    if as_list and clear:
        raise RequestError("expected --list or --clear, not both", argument="list", fits="one of them")
    if as_json and not as_list:
        raise RequestError("--json is given without --list", argument="json", fits="--list --json")
    if as_list:
        _list(as_json)
    elif clear:
        _clear(Terminal(quiet=quiet))
    else:
        tune_model(model, Terminal(quiet=quiet), **options)


def _list(as_json: bool) -> None:
    from sdrt.onnx.tuned import every_tuned_graph

    graphs = every_tuned_graph()
    if as_json:
        rows = [
            {"folder": str(one.folder), "of": str(one.of), "bytes": one.size, "last_used": one.last_used}
            for one in graphs
        ]
        echo_json({"tuned": rows})
        return
    if not graphs:
        echo("no graph is tuned; `sdrt tune -m MODEL` tunes those of a model")
        return
    echo(
        columns(
            [
                HEADINGS,
                *((_name(one), human_size(one.size), _day(one.last_used), str(one.of)) for one in graphs),
            ]
        )
    )
    echo(f"\ntogether {size_of(graphs)}")


def _clear(terminal: Terminal) -> None:
    from sdrt.onnx.tuned import clear, every_tuned_graph

    before = every_tuned_graph()
    total = size_of(before)
    if stay := clear():
        raise SdrtError.advised(
            f"{count(stay)} still there",
            f"close the programs that use them, or remove {stay[0].folder.parent} yourself",
            path=stay[0].folder,
        )
    terminal.notice(f"removed {len(before)} tuned {'graph' if len(before) == 1 else 'graphs'}, {total}")


def _name(graph: TunedGraph) -> str:
    return graph.folder.name.rpartition("-")[0] or graph.folder.name


def _day(seconds: float) -> str:
    with suppress(OSError, OverflowError, ValueError):
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else "never"
    return "unknown"
