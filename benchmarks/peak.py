"""What a device reaches in matrix multiplication alone. Prints a JSON object with TFLOP/s.

    python benchmarks/peak.py --device cpu|cuda

On "cuda" torch's float16, on "cpu" NumPy's float32; the best of several square sizes and of several runs, with a
multiplication and an addition counted as two.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

RUNS = 10


def on_cuda() -> dict[int, float]:
    """TFLOP/s by size."""
    import torch

    def multiplier(size: int) -> Callable[[], Any]:
        a, b = (torch.randn(size, size, device="cuda", dtype=torch.float16) for _ in range(2))

        def multiply() -> None:
            torch.mm(a, b)
            torch.cuda.synchronize()

        return multiply

    return {size: _best(size, multiplier(size)) for size in (4096, 8192)}


def on_cpu() -> dict[int, float]:
    """TFLOP/s by size."""
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=list(DEVICES), default="cpu")
    by_size = DEVICES[parser.parse_args().device]()
    print(json.dumps({"tflops": max(by_size.values()), "by_size": by_size}))


if __name__ == "__main__":
    main()
