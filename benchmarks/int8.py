"""This command compares sdrt in int8 with sdrt in float32 and OpenVINO in bfloat16.

    python -m benchmarks int8 FLOAT INT8 OPENVINO [--openvino PYTHON] [--rounds 8]

It measures a step of SD 1.5's U-Net, and the VAE's decoder. FLOAT and INT8 are folders from ``sdrt export``, without
and with ``--dtype int8``. OPENVINO comes from ``optimum-cli export openvino --weight-format fp32``, which uses
OpenVINO's own conversion, in which attention stays one operator. All three need the same checkpoint. This command
makes them:

    python -m benchmarks prepare --work DIR --systems sdrt,sdrt-int8,openvino

PYTHON is an interpreter with ``openvino``, if this one lacks it. Each system is a process that loads its graph, runs
it once to warm up, and waits. A round runs each system once, in turn, so that other programs disturb all alike.
Ratios are taken within a round. The inputs are the same: 512x512 pixels, an image with guidance. All three processes
stay in memory together and take 14 GB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import worker
from benchmarks.bars import INT8_FASTER, INT8_MEMORY
from benchmarks.command_line import parser_of

SYSTEMS = ("sdrt int8", "sdrt fp32", "OpenVINO bf16")
COMPONENTS = ("unet", "vae_decoder")
_GRAPHS = dict(zip(SYSTEMS, ("model.onnx", "model.onnx", "openvino_model.xml"), strict=True))
BAR = {"times_faster_than_bf16": INT8_FASTER, "memory_of_fp32": INT8_MEMORY}
Feeds = dict[str, np.ndarray[Any, Any]]


def feeds(component: str) -> Feeds:
    """Inputs for 512x512 pixels. The U-Net gets two rows, for guidance."""
    random = np.random.default_rng(0)
    if component == "vae_decoder":
        return {"latent_sample": random.standard_normal((1, 4, 64, 64), dtype=np.float32)}
    return {
        "sample": random.standard_normal((2, 4, 64, 64), dtype=np.float32),
        "timestep": np.array(451, np.float32),
        "encoder_hidden_states": random.standard_normal((2, 77, 768), dtype=np.float32),
    }


def _sdrt(graph: Path, inputs: Feeds) -> Callable[[], Any]:
    from sdrt.common.notices import Notices
    from sdrt.onnx.providers import SessionConfig
    from sdrt.onnx.session import Component

    component = Component(graph.parent.name, graph, SessionConfig(provider="cpu"), Notices(None))
    (output,) = component.outputs
    return lambda: component.run(inputs, output)


def _openvino(graph: Path, inputs: Feeds) -> Callable[[], Any]:
    import openvino

    core = openvino.Core()
    model = core.read_model(graph)
    # The timestep has an axis or none, depending on the version of the converter.
    inputs = {
        name: value.reshape((1,) * model.input(name).get_partial_shape().rank.get_length())
        if value.ndim == 0
        else value
        for name, value in inputs.items()
    }
    model.reshape({name: list(value.shape) for name, value in inputs.items()})
    hints = {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(model, "CPU", hints)
    request = compiled.create_infer_request()
    return lambda: request.infer(inputs)


def serve(system: str, graph: Path) -> None:
    """Load, run once, and print both times. Then run once for every line on stdin, and print the seconds."""
    inputs = feeds(graph.parent.name)
    start = time.perf_counter()
    run = (_openvino if system.startswith("OpenVINO") else _sdrt)(graph, inputs)
    loaded = time.perf_counter()
    run()
    print(json.dumps({"load": loaded - start, "first": time.perf_counter() - loaded}), flush=True)
    for _ in sys.stdin:
        begin = time.perf_counter()
        run()
        print(time.perf_counter() - begin, flush=True)


class System:
    """One system with one graph, in its own process, which waits for its turn."""

    def __init__(self, name: str, graph: Path, python: str) -> None:
        from benchmarks.measure import PeakMemory

        self._process = subprocess.Popen(
            [*worker.command(python, "int8"), "--serve", name, str(graph)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | worker.environment(),
        )
        self._memory = PeakMemory(None)
        self._memory.begin(self._process.pid)
        self.start: dict[str, float] = json.loads(self._line())

    def run(self) -> float:
        """Seconds of one run."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        return float(self._line())

    def close(self) -> dict[str, float]:
        """End the process. Returns its times to start, and its peak memory."""
        self._memory.stop()
        self._process.communicate()
        memory = {"own_bytes": self._memory.own, "resident_bytes": self._memory.resident}
        return self.start | memory

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{self._process.args!r} ended with {self._process.wait()}")
        return line


def compare(folders: dict[str, Path], pythons: dict[str, str], rounds: int) -> dict[str, Any]:
    """Measure every component in every system, one run of each in turn."""
    from benchmarks.measure import device

    found = {}
    for component in COMPONENTS:
        systems = {
            name: System(name, folders[name] / component / _GRAPHS[name], pythons[name]) for name in SYSTEMS
        }
        turns = [{name: system.run() for name, system in systems.items()} for _ in range(rounds)]
        found[component] = _summary(turns, {name: system.close() for name, system in systems.items()})
    return {"rounds": rounds, "components": found, "bar": BAR, "device": device()}


def _summary(turns: list[dict[str, float]], others: dict[str, dict[str, float]]) -> dict[str, Any]:
    """System → seconds of a run, ratio to int8 within the round, and what was measured once."""
    from benchmarks.measure import spread

    return {
        name: others[name]
        | {
            "seconds": spread([turn[name] for turn in turns]),
            "ratio": spread([turn[name] / turn[SYSTEMS[0]] for turn in turns]),
            "rounds": [turn[name] for turn in turns],
        }
        for name in SYSTEMS
    }


def table(figures: dict[str, Any]) -> str:
    """A table of medians, and in brackets the ratio to int8 with its spread."""
    from benchmarks.measure import markdown

    rows = []
    for component in COMPONENTS:
        for name, found in figures["components"][component].items():
            seconds, ratio = found["seconds"], found["ratio"]
            shown = f"{seconds['median']:.2f} s, {seconds['min']:.2f} at best"
            if name != SYSTEMS[0]:
                shown += f" ({ratio['median']:.2f}×, {ratio['min']:.2f}–{ratio['max']:.2f})"
            memory = [f"{found[key] / 1e9:.1f} GB" for key in ("own_bytes", "resident_bytes")]
            rows.append([f"`{component}`, {name}", shown, f"{found['load']:.1f} s", *memory])
    header = [
        "SD 1.5's architecture, 512×512",
        "a step or a decode",
        "load",
        "peak memory",
        "with mapped files",
    ]
    return markdown(header, rows)


def met(figures: dict[str, Any]) -> bool:
    """Whether the median ratio of the U-Net and its memory meet the goal."""
    unet = figures["components"]["unet"]
    faster = unet["OpenVINO bf16"]["ratio"]["median"]
    less = unet["sdrt int8"]["own_bytes"] / unet["sdrt fp32"]["own_bytes"]
    return bool(faster >= BAR["times_faster_than_bf16"] and less <= BAR["memory_of_fp32"])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of("int8", __doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FLOAT INT8 OPENVINO")
    parser.add_argument("--openvino", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--serve", metavar="SYSTEM", choices=SYSTEMS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve(options.serve, options.folders[0])
        return
    if len(options.folders) != 3:
        parser.error("expected three folders: FLOAT INT8 OPENVINO")
    plain, small, theirs = (folder.absolute() for folder in options.folders)
    folders = dict(zip(SYSTEMS, (small, plain, theirs), strict=True))
    for name, folder in folders.items():
        if not (folder / "unet" / _GRAPHS[name]).is_file():
            parser.error(f"{folder} has no unet/{_GRAPHS[name]}: expected a folder for {name}")
    pythons = dict(zip(SYSTEMS, (sys.executable, sys.executable, options.openvino), strict=True))
    figures = compare(folders, pythons, options.rounds)
    print(table(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if not met(figures):
        sys.exit(
            f"misses the goal: {INT8_FASTER:g}× faster than OpenVINO in bf16, in {INT8_MEMORY:g} of fp32's memory"
        )


if __name__ == "__main__":
    main()
