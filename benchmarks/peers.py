"""One system in one process, from import to picture. Prints a JSON object with what it took.

    python benchmarks/peers.py sdrt|optimum|diffusers FOLDER --size 512 --steps 3

The steps are counted from the first step's end, so that warming up is not in them; decoding is what follows the
last one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

PROMPT = "a lighthouse on a cliff at dusk"
Step = Callable[..., dict[str, Any]]


def _sdrt(folder: str) -> tuple[float, Any, dict[str, Any]]:
    start = time.perf_counter()
    from sdrt import StableDiffusionPipeline

    imported = time.perf_counter() - start
    pipeline = StableDiffusionPipeline.from_pretrained(folder, provider="cpu").load()
    return imported, pipeline, {"seed": 0}


def _optimum(folder: str) -> tuple[float, Any, dict[str, Any]]:
    start = time.perf_counter()
    import torch
    from optimum.onnxruntime import ORTStableDiffusionPipeline

    imported = time.perf_counter() - start
    pipeline = ORTStableDiffusionPipeline.from_pretrained(folder)
    return imported, pipeline, {"generator": torch.Generator().manual_seed(0)}


def _diffusers(folder: str) -> tuple[float, Any, dict[str, Any]]:
    start = time.perf_counter()
    import torch
    from diffusers import StableDiffusionPipeline

    imported = time.perf_counter() - start
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    return imported, pipeline, {"generator": torch.Generator().manual_seed(0)}


SYSTEMS = {"sdrt": _sdrt, "optimum": _optimum, "diffusers": _diffusers}


def measure(system: str, folder: str, size: int, steps: int) -> dict[str, Any]:
    """Seconds to import, to load, to the first step's end, for each step after it, and to decode."""
    start = time.perf_counter()
    imported, pipeline, seed = SYSTEMS[system](folder)
    loaded = time.perf_counter() - start - imported
    stamps: list[float] = []

    def on_step(_pipeline: Any, _index: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        stamps.append(time.perf_counter())
        return tensors

    begin = time.perf_counter()
    pipeline(
        PROMPT,
        height=size,
        width=size,
        num_inference_steps=steps,
        callback_on_step_end=on_step,
        **seed,
    )
    took = [after - before for before, after in pairwise(stamps)]
    decoded = time.perf_counter() - stamps[-1]
    return {"import": imported, "load": loaded, "first": stamps[0] - begin, "steps": took, "decode": decoded}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("system", choices=sorted(SYSTEMS))
    parser.add_argument("folder")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    print(json.dumps(measure(options.system, options.folder, options.size, options.steps)))


if __name__ == "__main__":
    main()
