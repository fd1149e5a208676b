"""sdrt in int8 beside sdrt in float32 and OpenVINO in bfloat16: a step of SD 1.5's U-Net, and the VAE's decoder.

    python benchmarks/int8.py FLOAT INT8 PORTABLE [--openvino PYTHON] [--rounds 3]

FLOAT and INT8 are folders of ``sdrt export --architecture sd15 --random-weights 0`` with and without ``--dtype int8``,
PORTABLE is one of ``--target portable``, which OpenVINO reads; PYTHON is an interpreter that has ``openvino``, if this
one has not. A process for each system and round, the systems in turn; ratios are taken within a round. The inputs are
the same: 512x512 pixels, a picture with guidance. A process loads the graph, runs it once to warm up, and then counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

SYSTEMS = ("sdrt int8", "sdrt fp32", "OpenVINO bf16")
COMPONENTS = ("unet", "vae_decoder")
BAR = {"times_faster_than_bf16": 1.1, "memory_of_fp32": 0.5}
Feeds = dict[str, np.ndarray[Any, Any]]


def feeds(component: str) -> Feeds:
    """Inputs for 512x512 pixels; of the U-Net two rows, as guidance has."""
    random = np.random.default_rng(0)
    if component == "vae_decoder":
        return {"latent_sample": random.standard_normal((1, 4, 64, 64), dtype=np.float32)}
    return {
        "sample": random.standard_normal((2, 4, 64, 64), dtype=np.float32),
        "timestep": np.array(451, np.float32),
        "encoder_hidden_states": random.standard_normal((2, 77, 768), dtype=np.float32),
    }


def _sdrt(graph: Path, inputs: Feeds) -> Callable[[], Any]:
    from sdrt.config import SessionConfig
    from sdrt.notices import Notices
    from sdrt.session import Component

    component = Component(graph.parent.name, graph, SessionConfig(provider="cpu"), Notices(None))
    (output,) = component.outputs
    return lambda: component.run(inputs, output)


def _openvino(graph: Path, inputs: Feeds) -> Callable[[], Any]:
    import openvino

    core = openvino.Core()
    model = core.read_model(graph)
    model.reshape({name: list(value.shape) for name, value in inputs.items()})
    hints = {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(model, "CPU", hints)
    request = compiled.create_infer_request()
    return lambda: request.infer(inputs)


def measure(system: str, graph: Path, runs: int) -> dict[str, Any]:
    """Seconds to load, of the first run, and of each run after it."""
    inputs = feeds(graph.parent.name)
    start = time.perf_counter()
    run = (_openvino if system.startswith("OpenVINO") else _sdrt)(graph, inputs)
    loaded = time.perf_counter()
    run()
    stamps = [time.perf_counter()]
    for _ in range(runs):
        run()
        stamps.append(time.perf_counter())
    took = [after - before for before, after in pairwise(stamps)]
    return {"load": loaded - start, "first": stamps[0] - loaded, "runs": took}


def compare(folders: dict[str, Path], pythons: dict[str, str], rounds: int, runs: int) -> dict[str, Any]:
    """Every component in every system, the systems in turn."""
    from measure import device

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "log.txt"
        for component in COMPONENTS:
            turns = [
                {
                    name: _process(name, folders[name] / component, pythons[name], runs, log)
                    for name in SYSTEMS
                }
                for _ in range(rounds)
            ]
            found[component] = _summary(turns)
    return {"rounds": rounds, "runs": runs, "components": found, "bar": BAR, "device": device()}


def _process(system: str, folder: Path, python: str, runs: int, log: Path) -> dict[str, float]:
    from measure import run

    command = [python, __file__, "--measure", system, folder / "model.onnx", "--runs", str(runs)]
    finished = run(command, log)
    return {
        "seconds": statistics.median(finished.result["runs"]),
        "load": finished.result["load"],
        "own_bytes": finished.own_bytes,
        "resident_bytes": finished.resident_bytes,
    }


def _summary(turns: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Of each system the figures, and their ratios to int8 within a round."""
    from measure import spread

    figures = tuple(turns[0][SYSTEMS[0]])
    return {
        name: {
            key: spread([turn[name][key] for turn in turns])
            | {"ratio": spread([turn[name][key] / turn[SYSTEMS[0]][key] for turn in turns])}
            for key in figures
        }
        for name in SYSTEMS
    }


def table(figures: dict[str, Any]) -> str:
    """Medians, and in brackets the ratio to int8 with its spread."""
    from measure import markdown

    rows = []
    for component in COMPONENTS:
        for name, found in figures["components"][component].items():
            cells = [f"`{component}`, {name}"]
            for key in ("seconds", "load", "own_bytes", "resident_bytes"):
                value, ratio = found[key]["median"], found[key]["ratio"]
                shown = f"{value / 1e9:.1f} GB" if key.endswith("bytes") else f"{value:.2f} s"
                if name != SYSTEMS[0]:
                    shown += f" ({ratio['median']:.2f}×, {ratio['min']:.2f}–{ratio['max']:.2f})"
                cells.append(shown)
            rows.append(cells)
    header = [
        "SD 1.5's architecture, 512×512",
        "a step or a decode",
        "load",
        "peak memory",
        "with mapped files",
    ]
    return markdown(header, rows)


def met(figures: dict[str, Any]) -> bool:
    """Whether the medians of the U-Net's ratios reach the bar."""
    unet = figures["components"]["unet"]
    faster = unet["OpenVINO bf16"]["seconds"]["ratio"]["median"]
    less = 1 / unet["sdrt fp32"]["own_bytes"]["ratio"]["median"]
    return bool(faster >= BAR["times_faster_than_bf16"] and less <= BAR["memory_of_fp32"])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FLOAT INT8 PORTABLE")
    parser.add_argument("--openvino", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--measure", metavar="SYSTEM", choices=SYSTEMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.folders[0], options.runs)))
        return
    if len(options.folders) != 3:
        parser.error("expected three folders: FLOAT INT8 PORTABLE")
    plain, small, portable = (folder.absolute() for folder in options.folders)
    folders = dict(zip(SYSTEMS, (small, plain, portable), strict=True))
    pythons = dict(zip(SYSTEMS, (sys.executable, sys.executable, options.openvino), strict=True))
    figures = compare(folders, pythons, options.rounds, options.runs)
    print(table(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if not met(figures):
        sys.exit("below the bar: 1.1× faster than OpenVINO in bf16, in half the memory of fp32")


if __name__ == "__main__":
    main()
