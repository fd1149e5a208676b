"""Times steps with and without a ControlNet, and the ControlNet alone, in turn. `control.py` runs this as a process.

    python -m benchmarks.control_step MODEL CONTROLNET SIZE ROUNDS

The last line of its output is a JSON object with the time of each, by round, and the graphs that were open.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from sdrt import StableDiffusionPipeline
from sdrt.request.request import Request

__all__ = ["CONTROLLED", "NET", "PLAIN", "main", "measured"]

PLAIN, NET, CONTROLLED = "plain step", "ControlNet", "step with it"
_BATCH, _TOKENS, _FACTOR = 2, 77, 8


def main(arguments: Sequence[str]) -> None:
    model, net, size, rounds = arguments
    pipeline = StableDiffusionPipeline.from_pretrained(model, provider="cpu", controlnet=[net])
    turns = measured(pipeline, int(size), int(rounds))
    print(json.dumps({"turns": turns, "graphs": [graph.name for graph in pipeline.graphs]}), flush=True)


Turn = dict[str, dict[str, float]]
"""The time and the CPU time of each part in a round, in seconds."""


def measured(pipeline: StableDiffusionPipeline, size: int, rounds: int) -> list[Turn]:
    """What each part takes, by round. The first call of each is not counted."""
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    # One step more than is taken: the last one would decode.
    usual: dict[str, Any] = {"num_inference_steps": rounds + 2, "seed": 0, "width": size, "height": size}
    plain = pipeline.stream(Request(prompt="a red circle", **usual))
    controlled = pipeline.stream(Request(prompt="a red circle", control_image=image, **usual))
    next(plain), next(controlled)
    with _alone(pipeline, size) as net:
        net()
        parts: Mapping[str, Callable[[], Any]] = {
            PLAIN: lambda: next(plain),
            NET: net,
            CONTROLLED: lambda: next(controlled),
        }
        return [_turn(parts, number) for number in range(rounds)]


def _turn(parts: Mapping[str, Callable[[], Any]], number: int) -> Turn:
    names, found = [*parts], {}
    first = number % len(names)
    for name in names[first:] + names[:first]:
        wall, cpu = time.perf_counter(), time.process_time()
        parts[name]()
        found[name] = {"step": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    return found


@contextmanager
def _alone(pipeline: StableDiffusionPipeline, size: int) -> Iterator[Callable[[], Any]]:
    """The ControlNet with buffers of its own, filled with noise."""
    (component,) = (graph for graph in pipeline.graphs if graph.name == "controlnet")
    latents, numbers = size // _FACTOR, np.random.default_rng(0)
    sides: Mapping[Any, int] = {
        "batch": _BATCH,
        "sequence": _TOKENS,
        **dict.fromkeys(("height", "width"), latents),
        **dict.fromkeys(("condition_height", "condition_width"), size),
    }
    shapes = {
        name: tuple(int(sides.get(side, side)) for side in spec.shape)
        for name, spec in component.inputs.items()
    }
    with component.bound(shapes, tuple(component.outputs)) as run:
        for name, shape in shapes.items():
            run.set(name, numbers.random(shape, np.float32))
        yield run


if __name__ == "__main__":
    main(sys.argv[1:])
