"""Times a call of the U-Nets of several model folders, in turn. `export.py` runs this as a process.

    python -m benchmarks.unet_step --rounds 5 --size 512 NAME=FOLDER NAME=FOLDER

The last line of its output is a JSON object with the seconds of each name, by round. A call has a batch of two, as with
guidance. ONNX Runtime has its default settings, so that only the graphs differ. Every round begins with another graph,
and the first call of each graph is not counted.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

BATCH, TOKENS, FACTOR = 2, 77, 8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("folders", nargs="+", metavar="NAME=FOLDER")
    options = parser.parse_args()
    sessions = {}
    for name, _, folder in (text.partition("=") for text in options.folders):
        path = Path(folder) / "unet" / "model.onnx"
        sessions[name] = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    print(json.dumps({"turns": turns(sessions, options.rounds, options.size)}), flush=True)


def turns(sessions: Mapping[str, Any], rounds: int, size: int) -> list[dict[str, float]]:
    """The seconds of a call of each session, by round."""
    feeds = {name: _feed(session, size) for name, session in sessions.items()}
    for name, session in sessions.items():
        session.run(None, feeds[name])
    names = [*sessions]
    measured = []
    for number in range(rounds):
        seconds = {}
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.perf_counter()
            sessions[name].run(None, feeds[name])
            seconds[name] = time.perf_counter() - start
        measured.append(seconds)
    return measured


def _feed(session: Any, size: int) -> dict[str, Any]:
    """Random inputs, drawn in the order of their names, so that every session gets the same."""
    numbers = np.random.default_rng(0)
    sides: Mapping[Any, int] = {
        "batch": BATCH,
        "sequence": TOKENS,
        "height": size // FACTOR,
        "width": size // FACTOR,
    }
    feed = {}
    for item in sorted(session.get_inputs(), key=lambda item: item.name):
        shape = [sides.get(side, side) for side in item.shape]
        feed[item.name] = numbers.standard_normal(shape).astype(np.float32)
    return feed | {"timestep": np.array(500, np.float32)}


if __name__ == "__main__":
    main()
