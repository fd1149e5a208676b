"""This command compares the rest of a step, without the U-Net, on the host and as a graph on the device.

    python -m benchmarks step-graph [--device cpu|cuda] [--size 512] [--rounds 9] [--beside PEERS.json] [--json FILE]

- Host, as in sdrt: NumPy gets the U-Net's output, checks it for NaN, does guidance and an Euler step, and puts the
  scaled latents into the U-Net's input.
- Graph: ONNX Runtime does the same where the U-Net's buffers are, with the coefficients as an input. A sum goes to the
  host to check for NaN. Latents for previews and callbacks do not.

Both start with the U-Net's output in a buffer of the device, and end with its next input there. They contain only
arithmetic and copies, without the calls around them, so the result is the most that such a graph can save. They take
turns in rounds, and the ratio is taken within a round. PEERS.json is a record of `peers`. Its step gives the share that
the graph saves, which is worth it from `WORTH` on. docs/benchmark.md says what the project decided.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks.command_line import parser_of
from benchmarks.measure import device as machine
from benchmarks.measure import spread
from benchmarks.systems import OURS
from sdrt.onnx.engine import ort, preload_cuda
from sdrt.onnx.providers import PROVIDERS

CHANNELS, FACTOR, STEPS = 4, 8, 200
WORTH = 0.01
"""The share of a step that a graph must save, because each scheduler would need a second implementation."""
SCALE, SIGMA, SIGMA_NEXT, C_IN = (np.float32(value) for value in (7.5, 3.0, 2.5, 0.37))
Step = Callable[[], None]


def graph() -> bytes:
    """A graph from `x` and both halves of the U-Net's `output` to the next `x` and the next `sample`, in float32."""
    nodes = [
        helper.make_node("Split", ["coefficients"], ["scale", "change", "c_in"], axis=0, num_outputs=3),
        helper.make_node("Split", ["output"], ["unconditional", "conditional"], axis=0, num_outputs=2),
        helper.make_node("Sub", ["conditional", "unconditional"], ["difference"]),
        helper.make_node("Mul", ["difference", "scale"], ["weighted"]),
        helper.make_node("Add", ["unconditional", "weighted"], ["noise"]),
        helper.make_node("Mul", ["noise", "change"], ["towards"]),
        helper.make_node("Add", ["x", "towards"], ["x_next"]),
        helper.make_node("Mul", ["x_next", "c_in"], ["scaled"]),
        helper.make_node("Concat", ["scaled", "scaled"], ["sample"], axis=0),
        helper.make_node("ReduceSum", ["x_next"], ["total"], keepdims=0),
    ]
    latents, rows = [1, CHANNELS, "h", "w"], [2, CHANNELS, "h", "w"]

    def infos(**shapes: list[Any]) -> list[Any]:
        return [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()
        ]

    inputs = infos(x=latents, output=rows, coefficients=[3])
    made = helper.make_graph(nodes, "step", inputs, infos(x_next=latents, sample=rows, total=[]))
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


class OnDevice:
    """A step with the graph."""

    def __init__(self, device: str, x: Any, output: Any) -> None:
        provider = PROVIDERS[device].ort
        self._session = ort.InferenceSession(graph(), providers=[provider], enable_fallback=0)
        if self._session.get_providers()[0] != provider:
            raise SystemExit(f"ONNX Runtime took another provider than {provider}")
        # Copy the arrays: on the CPU, a value shares the memory of its array.
        self._given = [ort.OrtValue.ortvalue_from_numpy(array.copy(), device, 0) for array in (x, output)]
        self.x_next, self.sample = (
            ort.OrtValue.ortvalue_from_numpy(np.zeros_like(array), device, 0) for array in (x, output)
        )
        self._total = np.zeros((), np.float32)
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input("x", self._given[0])
        self._binding.bind_ortvalue_input("output", self._given[1])
        self._binding.bind_ortvalue_output("x_next", self.x_next)
        self._binding.bind_ortvalue_output("sample", self.sample)
        self._binding.bind_output("total", "cpu", 0, np.float32, [], self._total.ctypes.data)

    def __call__(self) -> None:
        # The coefficients change in every step.
        self._coefficients = np.array([SCALE, SIGMA_NEXT - SIGMA, C_IN])
        self._binding.bind_cpu_input("coefficients", self._coefficients)
        self._session.run_with_iobinding(self._binding)
        if not np.isfinite(self._total):
            raise SystemExit("not finite")

    def results(self) -> list[Any]:
        """The next latents, and the U-Net's next input."""
        return [self.x_next.numpy(), self.sample.numpy()]


class OnHost:
    """A step with NumPy, with the arithmetic of `sdrt.run.denoiser` and the Euler sampler."""

    def __init__(self, device: str, x: Any, output: Any) -> None:
        self._x = x.copy()
        self._given = ort.OrtValue.ortvalue_from_numpy(output.copy(), device, 0)
        self._sample = ort.OrtValue.ortvalue_from_numpy(np.zeros_like(output), device, 0)
        self._host = np.zeros_like(output)

    def __call__(self) -> None:
        fetched = self._given.numpy()
        if not np.isfinite(fetched).all():
            raise SystemExit("not finite")
        unconditional, conditional = fetched[:1], fetched[1:]
        difference = conditional - unconditional
        difference *= SCALE
        denoised = (unconditional + difference) * -SIGMA
        denoised += self._x
        self._next = self._x + (self._x - denoised) / SIGMA * (SIGMA_NEXT - SIGMA)
        scaled = self._next * C_IN
        for row in range(2):
            self._host[row] = scaled[0]
        self._sample.update_inplace(self._host)

    def results(self) -> list[Any]:
        """The next latents, and the U-Net's next input."""
        return [self._next, self._sample.numpy()]


def measure(device: str, size: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of a step with both, and their ratio. Raises `AssertionError` if the results differ."""
    if device == "cuda":
        preload_cuda()
    random = np.random.default_rng(0)
    shape = (CHANNELS, size // FACTOR, size // FACTOR)
    x, output = (random.standard_normal((rows, *shape), np.float32) for rows in (1, 2))
    steps: dict[str, Any] = {"host": OnHost(device, x, output), "graph": OnDevice(device, x, output)}
    for step in steps.values():
        step()
    for ours, theirs in zip(*(step.results() for step in steps.values()), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    turns = [{name: _milliseconds(step) for name, step in steps.items()} for _ in range(rounds)]
    return {
        "device": device,
        "size": size,
        "ms": {name: spread([turn[name] for turn in turns]) for name in steps},
        "graph_over_host": spread([turn["graph"] / turn["host"] for turn in turns]),
    }


def _peers(path: Path, device: str, size: int) -> dict[str, Any]:
    """A record of `peers` for the same device and size. Exits for any other file."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        settings, step = record["settings"], record["systems"][OURS]["step"]["median"]
        known = (settings["device"], settings["size"]) == (device, size) and step > 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(
            f"--beside {path}: not a record of peers ({type(error).__name__}: {error})"
        ) from None
    if not known:
        raise SystemExit(f"--beside {path}: expected a record of {device} at {size}")
    return dict(record)


def saved(found: dict[str, Any], peers: dict[str, Any]) -> dict[str, Any]:
    """The share of sdrt's step that the graph saves."""
    step = peers["systems"][OURS]["step"]["median"]
    share = (found["ms"]["host"]["median"] - found["ms"]["graph"]["median"]) / 1e3 / step
    return {"step": step, "share_of_step": share, "worth_it": share >= WORTH}


def _milliseconds(step: Step) -> float:
    start = time.perf_counter()
    for _ in range(STEPS):
        step()
    return (time.perf_counter() - start) / STEPS * 1e3


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of("step-graph", __doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--beside", type=Path, metavar="PEERS.json", help="a record of the same device and size"
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args(arguments)
    if min(options.rounds, options.size) < 1 or options.size % FACTOR:
        parser.error(f"expected at least 1 for --rounds, and a --size that is a multiple of {FACTOR}")
    peers = None if options.beside is None else _peers(options.beside, options.device, options.size)
    found = measure(options.device, options.size, options.rounds) | {"machine": machine()}
    for name, ms in found["ms"].items():
        print(f"{name}: {ms['median']:.3f} ms a step without the U-Net ({ms['min']:.3f}–{ms['max']:.3f})")
    ratio = found["graph_over_host"]
    print(f"graph over host: {ratio['median']:.2f} ({ratio['min']:.2f}–{ratio['max']:.2f})")
    if peers is not None:
        found |= saved(found, peers)
        worth = "worth it" if found["worth_it"] else "not worth it"
        print(f"{found['share_of_step']:.2%} of a step saved: {worth} (the limit is {WORTH:.0%})")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
