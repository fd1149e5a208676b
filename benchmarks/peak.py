"""This command measures a device's rate of matrix multiplication, in TFLOP/s.

    python -m benchmarks peak --device cpu|cuda

It prints a JSON object. torch multiplies in float16 on "cuda", NumPy in float32 on "cpu". The figure is the best of
several square sizes and several runs; a multiplication and an addition count as two operations.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.command_line import parser_of

RUNS = 10


def on_cuda() -> dict[int, float]:
    """Size → TFLOP/s, by torch in float16."""
    import torch

    def multiplier(size: int) -> Callable[[], Any]:
        a, b = (torch.randn(size, size, device="cuda", dtype=torch.float16) for _ in range(2))

        def multiply() -> None:
            torch.mm(a, b)
            torch.cuda.synchronize()

        return multiply

    return {size: _best(size, multiplier(size)) for size in (4096, 8192)}


def on_cpu() -> dict[int, float]:
    """Size → TFLOP/s, by NumPy in float32."""
    import numpy as np

    def multiplier(size: int) -> Callable[[], Any]:
        a, b = (np.random.default_rng(seed).standard_normal((size, size), np.float32) for seed in (0, 1))
        return lambda: a @ b

    return {size: _best(size, multiplier(size)) for size in (1024, 2048)}


def _best(size: int, multiply: Callable[[], Any]) -> float:
    multiply()
    seconds = []
    for _ in range(RUNS):
        start = time.perf_counter()
        multiply()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds) / 1e12


DEVICES = {"cpu": on_cpu, "cuda": on_cuda}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of("peak", __doc__)
    parser.add_argument("--device", choices=list(DEVICES), default="cpu")
    by_size = DEVICES[parser.parse_args(arguments).device]()
    print(json.dumps({"tflops": max(by_size.values()), "by_size": by_size}))


if __name__ == "__main__":
    main()
