"""A step of the U-Net with shapes that its session knows beforehand, beside shapes that it finds out in each run.

    python benchmarks/static_shapes.py MODEL [--device cpu|cuda] [--size 512] [--rounds 9] [--json FILE]

MODEL is a folder of `sdrt export`. Both sessions are in memory together and take turns with the same buffers on the
device; ratios are those of a round. What it says decides whether the runtime should make a session for each size
(docs/benchmark.md).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from measure import device, spread
from step_graph import PROVIDERS

from sdrt.config import SessionConfig
from sdrt.onnx_runtime import ort, preload_cuda
from sdrt.provider_options import Setting

FACTOR, TOKENS = 8, 77


def session(graph: Path, name: str, sizes: dict[str, int]) -> Any:
    """One session; `sizes` are those of the axes that it may count on."""
    options = ort.SessionOptions()
    options.enable_mem_pattern = False  # as sdrt's
    for axis, size in sizes.items():
        options.add_free_dimension_override_by_name(axis, size)
    passed = SessionConfig(provider=name).passed(name, Setting(repeats=True))
    made = ort.InferenceSession(str(graph), options, [PROVIDERS[name]], [passed])
    if made.get_providers()[0] != PROVIDERS[name]:
        raise SystemExit(f"ONNX Runtime took {made.get_providers()[0]} in place of {PROVIDERS[name]}")
    return made


def bound(made: Any, name: str, shapes: dict[str, tuple[int, ...]]) -> Any:
    """Inputs on the device, outputs there too."""
    random, binding = np.random.default_rng(0), made.io_binding()
    for port in made.get_inputs():
        dtype = np.float16 if "float16" in port.type else np.float32
        array = random.standard_normal(shapes[port.name]).astype(dtype)
        binding.bind_ortvalue_input(port.name, ort.OrtValue.ortvalue_from_numpy(array, name, 0))
    for port in made.get_outputs():
        binding.bind_output(port.name, name, 0)
    return binding


def measure(graph: Path, name: str, size: int, rounds: int) -> dict[str, Any]:
    """Seconds of a step of both, and their ratio."""
    if name == "cuda":
        preload_cuda()
    side = size // FACTOR
    axes = {"batch": 2, "height": side, "width": side, "sequence": TOKENS}
    made = {"dynamic": session(graph, name, {}), "static": session(graph, name, axes)}
    ports = {port.name: port.shape for port in made["dynamic"].get_inputs()}
    shapes = {
        port: tuple(axes[axis] if isinstance(axis, str) else axis for axis in shape)
        for port, shape in ports.items()
    }
    bindings = {kind: bound(one, name, shapes) for kind, one in made.items()}
    for kind in made:  # what a provider does once
        _seconds(made[kind], bindings[kind])
    turns = [{kind: _seconds(made[kind], bindings[kind]) for kind in made} for _ in range(rounds)]
    return {
        "device": name,
        "size": size,
        "seconds": {kind: spread([turn[kind] for turn in turns]) for kind in made},
        "static_over_dynamic": spread([turn["static"] / turn["dynamic"] for turn in turns]),
    }


def _seconds(made: Any, binding: Any) -> float:
    start = time.perf_counter()
    made.run_with_iobinding(binding)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--device", choices=list(PROVIDERS), default="cpu")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    graph = options.model / "unet" / "model.onnx"
    if not graph.is_file():
        parser.error(f"{options.model} has no unet/model.onnx: expected a folder of sdrt export")
    found = measure(graph, options.device, options.size, options.rounds) | {"machine": device()}
    for kind, seconds in found["seconds"].items():
        print(f"{kind}: {seconds['median'] * 1e3:.2f} ms a step ({seconds['min'] * 1e3:.2f} at best)")
    ratio = found["static_over_dynamic"]
    print(f"static over dynamic: {ratio['median']:.3f} ({ratio['min']:.3f}–{ratio['max']:.3f})")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
