"""This command compares sdrt with other systems: the same weights, the same work, one process each, in turns.

    python -m benchmarks peers --work DIR [--device cpu|cuda] [--architecture sd15] [--size 512] [--rounds 3]

It prints figures, ratios and goals. The systems are the rows of `systems.py`. The command lists those that this machine
lacks, with the reason. DIR keeps the checkpoint of random weights and what every system made of it. `--python
NAME=PATH` runs a system with the interpreter of another environment, for systems that cannot share one. A machine that
slows down slows all systems, so ratios are taken within a round.

DIR/turns.jsonl has every turn as soon as it is measured. With `--within SECONDS`, the command starts no turn that would
end later. `--resume` continues with the same code, versions, settings and machine. It may name other systems and more
rounds. Systems that compile do so while the command prepares folders.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import sdrt
from benchmarks.bars import judge
from benchmarks.command_line import parser_of
from benchmarks.figures import differences, ratios, reached, spreads
from benchmarks.journal import Journal, sources
from benchmarks.measure import Failed, device
from benchmarks.prepare import prepare, why_missing
from benchmarks.remove_paths import record_without_paths
from benchmarks.requirements import versions
from benchmarks.settings import REPEATS, Limits, Settings, add_systems, chosen_systems, interpreters, say
from benchmarks.system_process import multiplication, take_turn
from benchmarks.systems import OURS, SYSTEMS, for_machine
from benchmarks.tables import report

SIZES = {"sd15": 512, "tiny": 64}


def compare(
    work: Path,
    settings: Settings,
    keep: Callable[[dict[str, Any]], None] = lambda _: None,
    *,
    resume: bool = False,
    limits: Limits | None = None,
) -> dict[str, Any]:
    """Prepare, measure in turns, and return the record. `keep` gets the record after every turn."""
    limits = limits or Limits()
    folders, absent, left = prepare(work, settings, limits)
    journal = Journal(work / "turns.jsonl", _run_of(settings), resume=resume)
    if journal.foreign:
        say(
            f"{journal.foreign} lines of turns.jsonl come from other code, versions, settings or another machine"
        )
    for number in range(settings.rounds):
        if number not in journal.peaks() and not limits.reached(0):
            for tflops in multiplication(work, settings):
                journal.add(number, tflops=tflops)
        for name in _order(number, folders):
            if name in absent or name in journal.turns(settings.rounds)[number]:
                continue
            if limits.reached(journal.seconds(name)):
                left.append(f"{name} in round {number + 1}")
                continue
            say(f"round {number + 1} of {settings.rounds}: {name}")
            _take(number, name, folders[name], work, settings, journal, absent)
            keep(_record(settings, absent, journal, left))
    for name, reason in absent.items():
        journal.add(settings.rounds - 1, absent=name, reason=reason)
    return _record(settings, absent, journal, left)


def _run_of(settings: Settings) -> dict[str, Any]:
    """What turns must share to be comparable."""
    same = ("device", "architecture", "size", "steps", "generations")
    machine = device()
    return {
        "settings": {key: getattr(settings, key) for key in same},
        "machine": {key: machine[key] for key in ("cpu", "logical_cores", "gpus", "python")},
        "versions": versions(settings.python(OURS)),
        "sources": sources(),
    }


def _order(number: int, names: Mapping[str, Path]) -> list[str]:
    """Every round begins with another system, so that none always follows the same one."""
    first = number % max(len(names), 1)
    return [*names][first:] + [*names][:first]


def _take(
    number: int,
    name: str,
    folder: Path,
    work: Path,
    settings: Settings,
    journal: Journal,
    absent: dict[str, str],
) -> None:
    """Measure one turn and write it to the journal. A system that fails is `absent` from then on."""
    start = time.monotonic()
    try:
        turn = take_turn(name, folder, work, settings)
    except Failed as error:
        absent[name] = f"failed in round {number + 1}: {error}"
        return
    journal.add(number, system=name, turn=turn, seconds=round(time.monotonic() - start, 1))


def _record(
    settings: Settings, absent: Mapping[str, str], journal: Journal, left: Sequence[str]
) -> dict[str, Any]:
    """The record: figures with spreads, ratios to sdrt, goals, missing systems and remaining turns. It has no paths."""
    turns = [turn for turn in journal.turns(settings.rounds) if turn]
    measured = dict.fromkeys([*settings.names, *(name for turn in turns for name in turn)])
    peaks = list(journal.peaks().values())
    told = asdict(settings) | {
        "names": list(measured),
        "rounds": max(settings.rounds, len(turns)),
        # Only the names: the paths of interpreters belong to this machine.
        "pythons": sorted(settings.pythons),
    }
    return {
        "settings": told,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "sources": sources(),
        "device": device(),
        "versions": {OURS: sdrt.__version__, **versions(settings.python(OURS))},
        "missing": record_without_paths(journal.absent() | dict(absent)),
        "left": list(left),
        "systems": spreads(turns),
        "ratios_to_sdrt": spreads([ratios(turn) for turn in turns]),
        "pictures_differ_by": differences(turns),
        "peak": reached(settings.architecture, settings.size, peaks, turns),
        "bars": [
            bar for name in measured if SYSTEMS[name].is_ours for bar in judge(settings.device, name, turns)
        ],
        "turns": turns,
    }


def _need_ours(absent: Mapping[str, str]) -> None:
    if OURS in absent:
        raise SystemExit(f"{OURS} itself was not measured: {absent[OURS]}")


def _need_all(left: Sequence[str]) -> None:
    if left:
        raise SystemExit(f"not finished in time: {', '.join(left)}; --resume continues")


def _write(figures: Mapping[str, Any], options: argparse.Namespace) -> None:
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if options.report:
        options.report.write_text(report(figures), encoding="utf-8")


def _settings(options: argparse.Namespace) -> Settings:
    names = chosen_systems(options.systems, for_machine(options.device))
    repeats = dict(REPEATS[options.device])
    repeats |= {key: given for key in repeats if (given := getattr(options, key)) is not None}
    if repeats["rounds"] < 1 or repeats["steps"] < 2 or repeats["generations"] < 1:
        raise SystemExit(
            "expected at least 1 for --rounds and --generations, and 2 for --steps: the first step counts separately"
        )
    return Settings(
        **repeats,
        device=options.device,
        architecture=options.architecture,
        size=options.size or SIZES[options.architecture],
        names=names,
        pythons=interpreters(options.python),
        timeout=options.timeout,
    )


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = parser_of("peers", __doc__)
    parser.add_argument("--work", type=Path, help="a folder for each architecture; default: a temporary one")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--architecture", choices=list(SIZES), default="sd15")
    parser.add_argument("--size", type=int, help="512 for sd15, 64 for tiny")
    usual = {
        key: " or ".join(f"{row[key]} on {device}" for device, row in REPEATS.items())
        for key in REPEATS["cpu"]
    }
    parser.add_argument("--steps", type=int, help=f"steps of an image; default: {usual['steps']}")
    parser.add_argument(
        "--generations",
        type=int,
        help=f"generations after the one that warms up; default: {usual['generations']}",
    )
    parser.add_argument("--rounds", type=int, help=f"turns of each system; default: {usual['rounds']}")
    add_systems(parser, "systems to compare; default: all that run on the device")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds that one process may take")
    parser.add_argument(
        "--within", type=float, metavar="SECONDS", help="start nothing that would end later than this"
    )
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="continue with the turns in --work; otherwise they are put aside",
    )
    parser.add_argument("--json", type=Path, help="write the record here")
    parser.add_argument("--report", type=Path, help="write the tables here too")
    parser.add_argument(
        "--prepare", action="store_true", help="only make the folders that systems load, in --work"
    )
    parser.add_argument("--list", action="store_true", help="only list which systems this machine has")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    settings = _settings(options)
    if options.list:
        for name in settings.names:
            print(f"{name}: {why_missing(name, settings) or 'here'}")
        return
    with tempfile.TemporaryDirectory() as scratch:
        work = (options.work or Path(scratch)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        limits = Limits(within=options.within)
        if options.prepare:
            _, absent, left = prepare(work, settings, limits)
            print(
                "\n".join(f"not measured: {name}: {reason}" for name, reason in absent.items())
                or "this machine has all systems"
            )
            _need_ours(absent)
            _need_all(left)
            return
        figures = compare(
            work,
            settings,
            lambda record: _write(record, options),
            resume=options.resume,
            limits=limits,
        )
        _write(figures, options)
        print(report(figures))
        _need_ours(figures["missing"])
        _need_all(figures["left"])
