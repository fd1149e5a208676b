"""A step of the U-Net with shapes that its session knows beforehand, beside shapes that it finds out in each run.

    python benchmarks/static_shapes.py MODEL [--device cpu|cuda] [--size 512] [--rounds 9] [--sessions 2] [--json FILE]

MODEL is a folder of `sdrt export`. Two sessions are in memory together and take turns, another one first in every
round, with buffers on the device; ratios are those of a round. Then two others are opened, as kernels are chosen once
for a session. docs/benchmark.md says what was decided by it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from measure import device as machine
from measure import spread
from step_graph import PROVIDERS

from sdrt.config import SessionConfig
from sdrt.onnx_runtime import ort, preload_cuda
from sdrt.provider_options import Setting

FACTOR, TOKENS = 8, 77


class Unet:
    """A session, and buffers of one size; `axes` are those that it may count on."""

    def __init__(self, graph: Path, device: str, sizes: dict[str, int], axes: dict[str, int]) -> None:
        options = ort.SessionOptions()
        options.enable_mem_pattern = False  # as sdrt's
        for axis, size in axes.items():
            options.add_free_dimension_override_by_name(axis, size)
        passed = SessionConfig(provider=device).passed(device, Setting(repeats=True))
        self._session = ort.InferenceSession(str(graph), options, [PROVIDERS[device]], [passed])
        if self._session.get_providers()[0] != PROVIDERS[device]:
            raise SystemExit(f"ONNX Runtime took another provider than {PROVIDERS[device]}")
        random, self._binding = np.random.default_rng(0), self._session.io_binding()
        # A binding of earlier versions does not keep what is bound.
        self._kept = []
        for port in self._session.get_inputs():
            shape = [sizes[axis] if isinstance(axis, str) else axis for axis in port.shape]
            array = np.asarray(random.standard_normal(shape), np.float32)
            self._kept.append(ort.OrtValue.ortvalue_from_numpy(array, device, 0))
            self._binding.bind_ortvalue_input(port.name, self._kept[-1])
        (port,) = self._session.get_outputs()
        self._binding.bind_output(port.name, device, 0)

    def seconds(self) -> float:
        """Of one run."""
        start = time.perf_counter()
        self._session.run_with_iobinding(self._binding)
        return time.perf_counter() - start

    def output(self) -> Any:
        """Of the last run."""
        return self._binding.copy_outputs_to_cpu()[0]


def measure(graph: Path, device: str, size: int, *, rounds: int, sessions: int) -> dict[str, Any]:
    """Seconds of a step of both, and their ratio. Raises `AssertionError` where they do not agree."""
    if device == "cuda":
        preload_cuda()
    sizes = {"batch": 2, "height": size // FACTOR, "width": size // FACTOR, "sequence": TOKENS}
    kinds: dict[str, dict[str, int]] = {"dynamic": {}, "static": sizes}
    turns = []
    for _ in range(sessions):
        made = {kind: Unet(graph, device, sizes, axes) for kind, axes in kinds.items()}
        for unet in made.values():  # what a provider does once
            unet.seconds()
        ours, theirs = (unet.output() for unet in made.values())
        np.testing.assert_allclose(ours, theirs, rtol=1e-2, atol=1e-2)
        for number in range(rounds):
            order = list(made) if number % 2 else [*reversed(made)]
            turns.append({kind: made[kind].seconds() for kind in order})
        del made, unet  # two others may not have room beside them
    return {
        "device": device,
        "size": size,
        "sessions": sessions,
        "seconds": {kind: spread([turn[kind] for turn in turns]) for kind in kinds},
        "static_over_dynamic": spread([turn["static"] / turn["dynamic"] for turn in turns]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--device", choices=list(PROVIDERS), default="cpu")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--sessions", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    graph = options.model / "unet" / "model.onnx"
    if not graph.is_file():
        parser.error(f"{options.model} has no unet/model.onnx: expected a folder of sdrt export")
    found = measure(graph, options.device, options.size, rounds=options.rounds, sessions=options.sessions) | {
        "machine": machine()
    }
    for kind, seconds in found["seconds"].items():
        print(f"{kind}: {seconds['median'] * 1e3:.2f} ms a step ({seconds['min'] * 1e3:.2f} at best)")
    ratio = found["static_over_dynamic"]
    print(f"static over dynamic: {ratio['median']:.3f} ({ratio['min']:.3f}–{ratio['max']:.3f})")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
