"""This command exports a full-size architecture with sdrt, with sdrt 0.1.0 and with optimum, in turn.

    python -m benchmarks export [--work DIR] [--rounds 2] [--architecture sd15] [--source folder|single]

All start from the same random weights and end with a written model folder. 0.1.0 also compares every component with
torch, and optimum's command line validates its output. Times and memory are those of the whole process and its children
(`measure.py` says what counts). Before each turn, the command reads the checkpoint into the page cache, waits until all
writes are on the disk, and touches the free memory. So no exporter pays for the work of another one, or of the host of
a virtual machine. Every round begins with another exporter; ratios are taken within a round. At the end, a step of
sdrt's U-Net and one of 0.1.0's are timed in turn (`unet_step.py`).

0.1.0 has its own checkout (`--baseline DIR`) and environment (`--python 0.1.0=PATH`). Without them, the command makes
both in the work folder, with git and pip. With `--source single`, the checkpoint is one file in float16.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import in_turn, worker
from benchmarks.bars import judge_export, judge_step
from benchmarks.command_line import conclude, parser_of
from benchmarks.exporters import EXPORTERS, OURS, RELEASED, Environment, environments
from benchmarks.folders import checkpoint, single_file
from benchmarks.measure import device, make_ready, run, spread
from benchmarks.settings import interpreters, say

__all__ = ["ExportSettings", "compare", "main", "table"]

FIGURES = {
    "cpu_seconds": "CPU time",
    "system_seconds": "of which kernel",
    "seconds": "time",
    "own_bytes": "peak memory",
    "resident_bytes": "with mapped files",
}
SOURCES = ("folder", "single")
_STEPS = 7


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What to export, with which exporters, and how often."""

    architecture: str = "sd15"
    source: str = "folder"
    rounds: int = 2
    names: tuple[str, ...] = tuple(EXPORTERS)
    baseline: Path | None = None
    pythons: Mapping[str, str] = field(default_factory=dict)


def compare(work: Path, settings: ExportSettings) -> dict[str, Any]:
    """Export in turn. The last folders stay in `work`, below `exported`."""
    log, names = work / "log.txt", _able(settings)
    make = single_file if settings.source == "single" else checkpoint
    source = make(work, log, settings.architecture)
    places = environments(names, work, log, baseline=settings.baseline, pythons=settings.pythons)
    turns: list[dict[str, dict[str, float]]] = []
    for number in range(settings.rounds):
        order = names[number % len(names) :] + names[: number % len(names)]
        turns.append({name: _turn(name, places[name], source, work, log) for name in order})
    record = _record(settings, names, turns)
    if {OURS, RELEASED} <= set(names):
        steps = _steps(work, log)
        record["steps"] = {
            "turns": steps,
            "ratio_to_released": spread([turn[OURS]["step"] / turn[RELEASED]["step"] for turn in steps]),
        }
        record["bars"] += judge_step(steps)
    return record


def _steps(work: Path, log: Path) -> list[dict[str, dict[str, float]]]:
    """The seconds of a call of each U-Net, by round."""
    folders = [f"{name}={work / 'exported' / name}" for name in (OURS, RELEASED)]
    command = [*worker.command(sys.executable, "unet_step"), "--rounds", str(_STEPS), *folders]
    done = run(command, log, environment=worker.environment())
    return [{name: {"step": took} for name, took in turn.items()} for turn in done.result["turns"]]


def _able(settings: ExportSettings) -> tuple[str, ...]:
    """The exporters that take the kind of source."""
    return tuple(name for name in settings.names if settings.source in EXPORTERS[name].sources)


def _record(
    settings: ExportSettings, names: Sequence[str], turns: Sequence[Mapping[str, Mapping[str, float]]]
) -> dict[str, Any]:
    record = {
        "architecture": f"{settings.architecture}, random weights",
        "source": settings.source,
        "rounds": settings.rounds,
        "turns": list(turns),
        "systems": in_turn.spreads(turns, tuple(FIGURES)),
        "bars": judge_export(settings.architecture, settings.source, turns),
        "device": device(),
    }
    if OURS in names:
        record["ratios_to_sdrt"] = in_turn.ratios(turns, tuple(FIGURES), OURS)
    return record


def _turn(name: str, place: Environment, source: Path, work: Path, log: Path) -> dict[str, float]:
    output = work / "exported" / name
    shutil.rmtree(output, ignore_errors=True)
    output.parent.mkdir(exist_ok=True)
    os.sync()
    make_ready([source] if source.is_file() else source.rglob("*.safetensors"))
    done = run([place.python, *EXPORTERS[name].arguments(source, output)], log, environment=place.variables)
    say(f"{name}: {done.cpu_seconds:.1f} s of CPU time, {done.seconds:.1f} s, {done.own_bytes / 1e9:.2f} GB")
    return {key: getattr(done, key) for key in FIGURES}


def table(figures: Mapping[str, Any]) -> str:
    """Medians, in brackets the ratio to sdrt with its spread; then the goals."""
    title = f"Export of {figures['architecture']}, from a {figures['source']}"
    return in_turn.table(figures, title, FIGURES, OURS, of="ratios_to_sdrt")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of("export", __doc__)
    parser.add_argument(
        "--work",
        type=Path,
        help="keep checkpoint and exports here (about 18 GB); default: a temporary folder",
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--architecture", default="sd15", help="default: sd15")
    parser.add_argument("--source", choices=SOURCES, default="folder", help="default: folder")
    parser.add_argument("--systems", metavar="A,B", help=f"default: {','.join(EXPORTERS)}")
    parser.add_argument("--baseline", type=Path, metavar="DIR", help="a checkout of sdrt 0.1.0")
    parser.add_argument(
        "--python", action="append", default=[], metavar="SYSTEM=PATH", help="the interpreter of a system"
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args(arguments)
    settings = ExportSettings(
        architecture=options.architecture,
        source=options.source,
        rounds=options.rounds,
        names=_chosen(options.systems),
        baseline=options.baseline,
        pythons=interpreters(options.python, EXPORTERS),
    )
    conclude(options, lambda work: compare(work, settings), table)


def _chosen(text: str | None) -> tuple[str, ...]:
    names = tuple(text.split(",")) if text else tuple(EXPORTERS)
    if unknown := [name for name in names if name not in EXPORTERS]:
        raise SystemExit(f"unknown system {unknown[0]!r}: choose from {', '.join(EXPORTERS)}")
    return names
