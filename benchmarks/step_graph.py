"""What a step does beside the U-Net, by NumPy as `sdrt` does it, and as a graph on the device in its place.

    python benchmarks/step_graph.py [--device cpu|cuda] [--size 512] [--rounds 9] [--json FILE]

NumPy: latents are scaled and put into the U-Net's input on the device, its output is fetched, guidance and a step of
Euler follow on the host. Graph: one of ONNX Runtime does all of that where the U-Net's buffers are, with the
coefficients as inputs; nothing goes to the host, which has no latents for previews and callbacks then. Both begin with
a U-Net's output in a buffer of the device and end with its next input in one. Turns are taken in rounds; the ratio is
that of a round. What it says decides whether the runtime should have such a graph (docs/benchmark.md).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from measure import device, spread
from onnx import TensorProto, helper

from sdrt.onnx_runtime import ort, preload_cuda

CHANNELS, FACTOR, SCALE, STEPS = 4, 8, np.float32(7.5), 200
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
SIGMA, SIGMA_NEXT = np.float32(3.0), np.float32(2.5)
Step = Callable[[], None]


def graph() -> bytes:
    """`x`, the U-Net's `output` of both halves, and coefficients, to the next `x` and the U-Net's next `sample`."""
    nodes = [
        helper.make_node("Split", ["output"], ["unconditional", "conditional"], axis=0, num_outputs=2),
        helper.make_node("Sub", ["conditional", "unconditional"], ["difference"]),
        helper.make_node("Mul", ["difference", "scale"], ["weighed"]),
        helper.make_node("Add", ["unconditional", "weighed"], ["noise"]),
        helper.make_node("Mul", ["noise", "change"], ["towards"]),
        helper.make_node("Add", ["x", "towards"], ["x_next"]),
        helper.make_node("Mul", ["x_next", "c_in"], ["scaled"]),
        helper.make_node("Concat", ["scaled", "scaled"], ["sample"], axis=0),
    ]
    latents, rows = [1, CHANNELS, "h", "w"], [2, CHANNELS, "h", "w"]
    info = helper.make_tensor_value_info
    shapes = {"x": latents, "output": rows, "scale": [], "change": [], "c_in": []}
    inputs = [info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    outputs = [info("x_next", TensorProto.FLOAT, latents), info("sample", TensorProto.FLOAT, rows)]
    made = helper.make_graph(nodes, "step", inputs, outputs)
    content: bytes = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    ).SerializeToString()
    onnx.checker.check_model(content)
    return content


def values(device: str, *arrays: Any) -> list[Any]:
    """Buffers of the device with these contents."""
    return [ort.OrtValue.ortvalue_from_numpy(array, device, 0) for array in arrays]


def by_graph(device: str, x: Any, output: Any) -> tuple[Step, Callable[[], Any]]:
    """A step on the device, and what reads the U-Net's next input."""
    options = ort.SessionOptions()
    session = ort.InferenceSession(graph(), options, providers=[PROVIDERS[device]])
    if session.get_providers()[0] != PROVIDERS[device]:
        raise SystemExit(f"ONNX Runtime took {session.get_providers()[0]} in place of {PROVIDERS[device]}")
    before, after, given, sample = values(device, x, x, output, np.zeros_like(output))
    coefficients = {"scale": SCALE, "change": SIGMA_NEXT - SIGMA, "c_in": np.float32(0.3)}
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", before)
    binding.bind_ortvalue_input("output", given)
    binding.bind_ortvalue_output("x_next", after)
    binding.bind_ortvalue_output("sample", sample)

    def step() -> None:
        for name, value in coefficients.items():  # another one in every step
            binding.bind_cpu_input(name, np.asarray(value))
        session.run_with_iobinding(binding)

    return step, sample.numpy


def by_numpy(device: str, x: Any, output: Any) -> tuple[Step, Callable[[], Any]]:
    """A step on the host, and what reads the U-Net's next input."""
    given, sample = values(device, output, np.zeros_like(output))
    host = np.zeros_like(output)

    def step() -> None:
        fetched = given.numpy()
        if not np.isfinite(fetched).all():
            raise SystemExit("not finite")
        unconditional, conditional = fetched
        difference = conditional - unconditional
        difference *= SCALE
        denoised = x[0] - SIGMA * (unconditional + difference)
        after = x[0] + (SIGMA_NEXT - SIGMA) * ((x[0] - denoised) / SIGMA)
        scaled = after * np.float32(0.3)
        for row in range(2):
            host[row] = scaled
        sample.update_inplace(host)

    return step, sample.numpy


def measure(device: str, size: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of a step by both, and their ratio; ends the program where they do not agree."""
    if device == "cuda":
        preload_cuda()
    random = np.random.default_rng(0)
    shape = (CHANNELS, size // FACTOR, size // FACTOR)
    x = random.standard_normal((1, *shape), np.float32)
    output = random.standard_normal((2, *shape), np.float32)
    steps = {"numpy": by_numpy(device, x, output), "graph": by_graph(device, x, output)}
    for step, _ in steps.values():
        step()
    ours, theirs = (np.array(read()) for _, read in steps.values())
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    turns = [{name: _milliseconds(step) for name, (step, _) in steps.items()} for _ in range(rounds)]
    return {
        "device": device,
        "size": size,
        "ms": {name: spread([turn[name] for turn in turns]) for name in steps},
        "graph_over_numpy": spread([turn["graph"] / turn["numpy"] for turn in turns]),
    }


def _milliseconds(step: Step) -> float:
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    return (time.perf_counter() - start) / STEPS * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=list(PROVIDERS), default="cpu")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    found = measure(options.device, options.size, options.rounds) | {"machine": device()}
    for name, ms in found["ms"].items():
        print(f"{name}: {ms['median']:.3f} ms a step beside the U-Net ({ms['min']:.3f}–{ms['max']:.3f})")
    ratio = found["graph_over_numpy"]
    print(f"graph over NumPy: {ratio['median']:.2f} ({ratio['min']:.2f}–{ratio['max']:.2f})")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
