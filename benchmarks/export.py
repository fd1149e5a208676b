"""This command exports the full-size SD 1.5 architecture with sdrt and with optimum, in turn.

    python -m benchmarks export [--work DIR] [--rounds 2]

Both start from the same diffusers folder of random weights and end with a checked model folder: sdrt compares every
component with torch, and optimum's command line validates its output. The time is that of the whole process. The memory
is the peak of the process and its children (`measure.py` says what counts). Before each turn, the checkpoint is in the
page cache and all writes are on the disk, so that neither pays for the other's work. Ratios are taken within a round.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.command_line import parser_of
from benchmarks.folders import checkpoint as make_checkpoint
from benchmarks.measure import device, markdown, run, spread

SYSTEMS = {"sdrt": "sdrt", "optimum": "optimum.commands.optimum_cli"}
"""Name → the module of its command."""
FIGURES = ("seconds", "own_bytes", "resident_bytes")
BAR = {"times_faster": 4.0, "memory_ratio": 1 / 3}


def export_both(work: Path, rounds: int) -> dict[str, Any]:
    """Export with both, ``rounds`` times. The folders stay in ``work`` as ``sdrt`` and ``optimum``."""
    log = work / "log.txt"
    checkpoint = make_checkpoint(work, log, "sd15")
    turns = [{name: _turn(name, checkpoint, work, log) for name in SYSTEMS} for _ in range(rounds)]
    return {
        "architecture": "sd15, random weights",
        "rounds": rounds,
        "systems": {
            name: {key: spread([turn[name][key] for turn in turns]) for key in FIGURES} for name in SYSTEMS
        },
        "ratios_to_sdrt": {
            name: {key: spread([turn[name][key] / turn["sdrt"][key] for turn in turns]) for key in FIGURES}
            for name in SYSTEMS
        },
        "bar": BAR,
        "device": device(),
    }


def _turn(system: str, checkpoint: Path, work: Path, log: Path) -> dict[str, float]:
    output = work / system
    shutil.rmtree(output, ignore_errors=True)
    os.sync()
    for path in checkpoint.rglob("*.safetensors"):
        with path.open("rb") as stream:
            while stream.read(1 << 24):
                pass
    arguments: Mapping[str, Sequence[str | Path]] = {
        "sdrt": ["export", checkpoint, "-o", output, "--target", "cpu"],
        "optimum": ["export", "onnx", "--model", checkpoint, "--task", "text-to-image", output],
    }
    finished = run([sys.executable, "-m", SYSTEMS[system], *arguments[system]], log)
    return {
        "seconds": finished.seconds,
        "own_bytes": finished.own_bytes,
        "resident_bytes": finished.resident_bytes,
    }


def met(figures: dict[str, Any]) -> bool:
    """Whether the medians of the ratios meet the goal."""
    ratios = figures["ratios_to_sdrt"]["optimum"]
    faster, less = ratios["seconds"]["median"], 1 / ratios["own_bytes"]["median"]
    return bool(faster >= BAR["times_faster"] and less <= BAR["memory_ratio"])


def table(figures: dict[str, Any]) -> str:
    """Medians, and in brackets the ratio to sdrt with its spread."""
    header = ["Export of SD 1.5's architecture", "time", "peak memory", "with mapped files"]
    rows = []
    for name in SYSTEMS:
        cells = [f"`{name}`"]
        for key in FIGURES:
            value, ratio = figures["systems"][name][key]["median"], figures["ratios_to_sdrt"][name][key]
            shown = f"{value:.0f} s" if key == "seconds" else f"{value / 1e9:.1f} GB"
            if name != "sdrt":
                shown += f" ({ratio['median']:.2f}×, {ratio['min']:.2f}–{ratio['max']:.2f})"
            cells.append(shown)
        rows.append(cells)
    return markdown(header, rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of("export", __doc__)
    parser.add_argument(
        "--work",
        type=Path,
        help="keep checkpoint and exports here (about 14 GB); default: a temporary folder",
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        work = (options.work or Path(scratch)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        figures = export_both(work, options.rounds)
    print(table(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if not met(figures):
        sys.exit(
            f"misses the goal: {BAR['times_faster']:g}× faster in {BAR['memory_ratio']:.2f} of the memory"
        )
