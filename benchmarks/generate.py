"""sdrt beside optimum's pipeline and diffusers on the CPU: import, load, seconds per step, decoding, peak memory.

    python benchmarks/generate.py WORK [--size 512] [--steps 3] [--rounds 3]

WORK is what ``benchmarks/export.py --work`` left. The systems take turns, a process each, so that a machine that slows
down slows all of them; ratios are taken within a round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from measure import device, markdown, run, spread

from sdrt.model import ModelFolder

FOLDERS = {"sdrt": "sdrt", "optimum": "optimum", "diffusers": "checkpoint"}
FIGURES = ("import", "load", "first", "step", "decode", "own", "resident")


def compare(work: Path, size: int, steps: int, rounds: int) -> dict[str, Any]:
    """``rounds`` turns of all systems; every figure with its spread, and the ratios to sdrt round by round.

    sdrt has hashed its folder before, as it has on every run of a user but the first.
    """
    os.environ["SDRT_CACHE"] = str(work / "cache")
    ModelFolder.open(work / FOLDERS["sdrt"]).verify()
    turns = [{name: _turn(work, name, size, steps) for name in FOLDERS} for _ in range(rounds)]
    return {
        "settings": {
            "size": size,
            "steps": steps,
            "rounds": rounds,
            "guidance_scale": 7.5,
            "dtype": "float32",
        },
        "systems": {
            name: {key: spread([turn[name][key] for turn in turns]) for key in FIGURES} for name in FOLDERS
        },
        "ratios_to_sdrt": {
            name: {key: spread([turn[name][key] / turn["sdrt"][key] for turn in turns]) for key in FIGURES}
            for name in FOLDERS
        },
        "device": device(),
    }


def _turn(work: Path, system: str, size: int, steps: int) -> dict[str, float]:
    script = Path(__file__).with_name("peers.py")
    command = [
        sys.executable,
        script,
        system,
        work / FOLDERS[system],
        "--size",
        str(size),
        "--steps",
        str(steps),
    ]
    finished = run(command, work / "log.txt")
    took = finished.result
    return {
        "import": took["import"],
        "load": took["load"],
        "first": took["first"],
        "step": statistics.median(took["steps"]),
        "decode": took["decode"],
        "own": float(finished.own_bytes),
        "resident": float(finished.resident_bytes),
    }


def table(figures: dict[str, Any]) -> str:
    """Medians, and in brackets the ratio to sdrt with its spread."""
    size = figures["settings"]["size"]
    header = [
        f"SD 1.5's architecture, CPU, {size}×{size}",
        "import",
        "load",
        "to the first step",
        "per step",
        "decode",
        "peak memory",
        "with mapped files",
    ]
    return markdown(header, [_row(name, figures) for name in FOLDERS])


def _row(name: str, figures: dict[str, Any]) -> list[str]:
    cells = [f"`{name}`"]
    for key in FIGURES:
        value, ratio = figures["systems"][name][key]["median"], figures["ratios_to_sdrt"][name][key]
        shown = f"{value / 1e9:.1f} GB" if key in ("own", "resident") else f"{value:.2f} s"
        if name != "sdrt":
            shown += f" ({ratio['median']:.2f}×, {ratio['min']:.2f}–{ratio['max']:.2f})"
        cells.append(shown)
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    figures = compare(options.work.absolute(), options.size, options.steps, options.rounds)
    print(table(figures))
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
