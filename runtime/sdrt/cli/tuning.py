"""Tuning a model for this machine's CPU, for `sdrt tune` and `sdrt export --tune`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrt.cli.generate.terminal import Terminal
from sdrt.cli.models.summary import human_size
from sdrt.errors import SdrtError

if TYPE_CHECKING:
    from sdrt.onnx.tuned import TunedGraph

__all__ = ["count", "size_of", "tune_model"]


def tune_model(model: str | Path, terminal: Terminal, **options: Any) -> None:
    """Tune every graph of a model, and say how many there are. `options` are those of `from_pretrained`.

    Raises:
        SdrtError: a graph could not be tuned.
        ModelError, ProviderError, OutOfMemoryError: the model cannot be loaded.
    """
    from sdrt import StableDiffusionPipeline
    from sdrt.onnx.tuned import NOT_TUNED, every_tuned_graph

    started, said = time.time(), list[str]()

    def notify(message: str) -> None:
        said.append(message)
        terminal.notice(message)

    with StableDiffusionPipeline.from_pretrained(model, provider="cpu", notify=notify, **options) as pipeline:
        pipeline.tune()
    graphs = [one for one in every_tuned_graph() if one.last_used >= started]
    if untuned := [message for message in said if NOT_TUNED in message]:
        raise SdrtError.advised(
            f"{model}: {count(graphs)} tuned, and {len(untuned)} could not be", untuned[0], argument="model"
        )
    seconds = time.time() - started
    terminal.notice(f"{model}: {count(graphs)} tuned, {size_of(graphs)}, in {seconds:.0f} s")


def count(graphs: Sequence[TunedGraph]) -> str:
    """How many graphs are."""
    return "1 graph is" if len(graphs) == 1 else f"{len(graphs)} graphs are"


def size_of(graphs: Sequence[TunedGraph]) -> str:
    """What graphs take on disk, in words."""
    return human_size(sum(one.size for one in graphs))
