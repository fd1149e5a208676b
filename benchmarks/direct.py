"""This command compares a checkpoint that runs directly with its exported folder: from the command to the first step.

    python -m benchmarks direct [--work DIR] [--rounds 3] [--architecture sd15]

All start from the same random weights: the exported folder (float32), the diffusers folder (float32), and one file in
float16. A turn is a process that opens the model on the CPU, loads every component, and makes one step of a tiny image;
its time and memory are those of the whole process. Before each turn, the files are in the page cache, and the benchmark
writes to most of the free memory. Otherwise a virtual machine's host would take part in the time (`measure.py`). The
exported folder's hashes were checked before. Every round begins with another one; ratios are taken within a round.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import in_turn, worker
from benchmarks.bars import judge_direct
from benchmarks.command_line import conclude, parser_of
from benchmarks.folders import checkpoint, make, single_file
from benchmarks.measure import device, make_ready, run
from benchmarks.settings import say

__all__ = ["compare", "main", "table"]

EXPORTED, FOLDER, SINGLE = "exported", "folder", "single"
FIGURES = {
    "cpu_seconds": "CPU time",
    "seconds": "time",
    "own_bytes": "peak memory",
    "resident_bytes": "with mapped files",
}


def compare(work: Path, architecture: str, rounds: int, names: Sequence[str]) -> dict[str, Any]:
    """Run the systems in turn. Their models stay in `work`."""
    log = work / "log.txt"
    models = {name: _model(name, work, log, architecture) for name in names}
    if EXPORTED in names:
        _turn(EXPORTED, models[EXPORTED], work, log)  # this first run checks the hashes
    turns: list[dict[str, dict[str, float]]] = []
    for number in range(rounds):
        order = [*names[number % len(names) :], *names[: number % len(names)]]
        turns.append({name: _turn(name, models[name], work, log) for name in order})
    return _record(architecture, names, turns)


def _model(name: str, work: Path, log: Path, architecture: str) -> Path:
    if name == SINGLE:
        return single_file(work, log, architecture)
    if name == FOLDER:
        return checkpoint(work, log, architecture)
    return make("sdrt", work, log, device="cpu", architecture=architecture, python=sys.executable)


def _turn(name: str, model: Path, work: Path, log: Path) -> dict[str, float]:
    make_ready([model] if model.is_file() else [path for path in model.rglob("*") if path.is_file()])
    variables = {**worker.environment(), "SDRT_CACHE": os.fspath(work / "cache")}
    command = [*worker.command(sys.executable, "first_step"), model]
    done = run(command, log, environment=variables)
    say(f"{name}: {done.cpu_seconds:.1f} s of CPU time, {done.seconds:.1f} s, {done.own_bytes / 1e9:.2f} GB")
    return {key: getattr(done, key) for key in FIGURES}


def _record(
    architecture: str, names: Sequence[str], turns: Sequence[Mapping[str, Mapping[str, float]]]
) -> dict[str, Any]:
    record = {
        "architecture": f"{architecture}, random weights",
        "rounds": len(turns),
        "turns": list(turns),
        "systems": in_turn.spreads(turns, tuple(FIGURES)),
        "bars": judge_direct(turns),
        "device": device(),
    }
    if EXPORTED in names:
        record["ratios"] = in_turn.ratios(turns, tuple(FIGURES), EXPORTED)
    return record


def table(figures: Mapping[str, Any]) -> str:
    """Medians, in brackets the ratio to the exported folder with its spread; then the goals."""
    title = f"To the first step of {figures['architecture']}"
    return in_turn.table(figures, title, FIGURES, EXPORTED, of="ratios")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of("direct", __doc__)
    parser.add_argument(
        "--work", type=Path, help="keep the models here (about 10 GB); default: a temporary folder"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--architecture", default="sd15", help="default: sd15")
    parser.add_argument("--systems", default=f"{EXPORTED},{FOLDER},{SINGLE}", help="default: %(default)s")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args(arguments)
    names = options.systems.split(",")
    if unknown := [name for name in names if name not in (EXPORTED, FOLDER, SINGLE)]:
        raise SystemExit(f"unknown system {unknown[0]!r}: choose from {EXPORTED}, {FOLDER}, {SINGLE}")
    conclude(options, lambda work: compare(work, options.architecture, options.rounds, names), table)
