"""sdrt beside its peers in one go: the same weights, the same work, a process each, in turns. Prints ratios and bars.

    python benchmarks/peers.py --work DIR [--device cpu|cuda] [--architecture sd15] [--size 512] [--rounds 3]

The systems are the rows of `systems.py`; those that this machine lacks are listed with the reason. DIR keeps the
checkpoint of random weights and what every system made of it. `--python NAME=PATH` runs a system in the interpreter
of another environment, for those that do not bear one another. A machine that slows down slows all that take turns:
ratios are taken within a round.

Every turn is kept in DIR/turns.jsonl as soon as it is measured. Where commands may not take long, `--within SECONDS`
begins no turn that would not end by then, and `--resume` goes on: with the same code, versions, settings and machine;
other systems may be named, and more rounds. Systems that compile do so while folders are prepared.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bars import judge
from figures import differences, ratios, reached, spreads
from folders import make
from journal import Journal, sources
from measure import Failed, Killed, Run, device, run
from presence import missing, versions
from scrub import scrubbed_record
from systems import OURS, SYSTEMS, for_machine
from tables import report

import sdrt
from sdrt.model import ModelFolder

HERE = Path(__file__).parent
COMPILED = "inductor"
SIZES = {"sd15": 512, "tiny": 64}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured, and how often. `pythons`: the interpreters of systems that have one of their own."""

    device: str = "cpu"
    architecture: str = "sd15"
    size: int = 512
    steps: int = 3
    generations: int = 2
    rounds: int = 3
    names: tuple[str, ...] = (OURS, "diffusers", "optimum")
    pythons: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 1800.0

    def python(self, name: str) -> str:
        return self.pythons.get(name, sys.executable)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When to stop, in seconds from `began` (of `time.monotonic()`); None: never."""

    within: float | None = None
    began: float = field(default_factory=time.monotonic)

    def reached(self, expected: float) -> bool:
        """Whether what takes `expected` seconds would end too late."""
        return self.within is not None and time.monotonic() - self.began + expected > self.within


def compare(
    work: Path,
    settings: Settings,
    keep: Callable[[dict[str, Any]], None] = lambda _: None,
    *,
    resume: bool = False,
    limits: Limits = Limits(),
) -> dict[str, Any]:
    """Prepare, take turns, and give the record; `keep` gets it after every turn, in case there is no next one."""
    folders, absent, left = prepare(work, settings, limits)
    journal = Journal(work / "turns.jsonl", _run_of(settings), resume=resume)
    if journal.foreign:
        _say(
            f"{journal.foreign} lines of turns.jsonl are of other code, versions, settings or another machine"
        )
    for number in range(settings.rounds):
        if number not in journal.peaks() and not limits.reached(0):
            for tflops in _multiplication(work, settings):
                journal.add(number, tflops=tflops)
        for name in _order(number, folders):
            if name in absent or name in journal.turns(settings.rounds)[number]:
                continue
            if limits.reached(journal.seconds(name)):
                left.append(f"{name} in round {number + 1}")
                continue
            _say(f"round {number + 1} of {settings.rounds}: {name}")
            _take(number, name, folders[name], work, settings, journal, absent)
            keep(_record(settings, absent, journal, left))
    for name, reason in absent.items():
        journal.add(settings.rounds - 1, absent=name, reason=reason)
    return _record(settings, absent, journal, left)


def _run_of(settings: Settings) -> dict[str, Any]:
    """What turns must have in common to be compared."""
    same = ("device", "architecture", "size", "steps", "generations")
    machine = device()
    return {
        "settings": {key: getattr(settings, key) for key in same},
        "machine": {key: machine[key] for key in ("cpu", "logical_cores", "gpus", "python")},
        "versions": versions(settings.python(OURS)),
        "sources": sources(),
    }


def _order(number: int, names: Mapping[str, Path]) -> list[str]:
    """Another one begins in every round, so that none always follows the same one."""
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
    """A turn, kept in the journal; a system that fails is `absent` from then on, until it is tried again."""
    start = time.monotonic()
    try:
        turn = _turn(name, folder, work, settings)
    except Failed as error:
        absent[name] = f"failed in round {number + 1}: {error}"
        return
    journal.add(number, system=name, turn=turn, seconds=round(time.monotonic() - start, 1))


def _record(
    settings: Settings, absent: Mapping[str, str], journal: Journal, left: Sequence[str]
) -> dict[str, Any]:
    """Figures with their spread, ratios to sdrt, bars, what is missing, what is left to do. No paths."""
    turns = [turn for turn in journal.turns(settings.rounds) if turn]
    measured = dict.fromkeys([*settings.names, *(name for turn in turns for name in turn)])
    peaks = list(journal.peaks().values())
    told = asdict(settings) | {
        "names": list(measured),
        "rounds": max(settings.rounds, len(turns)),
        # Where theirs lie is this machine's business.
        "pythons": sorted(settings.pythons),
    }
    return {
        "settings": told,
        "device": device(),
        "versions": {OURS: sdrt.__version__, **versions(settings.python(OURS))},
        "missing": scrubbed_record(journal.absent() | dict(absent)),
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


def _environment(work: Path) -> dict[str, str]:
    """This checkout is what is measured, whatever is installed; nothing is downloaded; caches are the run's own."""
    ours = [str(HERE.parent / folder) for folder in ("runtime", "export", "models")]
    return {
        "PYTHONPATH": os.pathsep.join([*ours, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "HF_HUB_OFFLINE": "1",
        "SDRT_CACHE": str(work / "cache"),
    }


def _missing(name: str, settings: Settings) -> str | None:
    row = SYSTEMS[name]
    if settings.device not in row.devices:
        return f"does not run on {settings.device} here"
    if row.architectures and settings.architecture not in row.architectures:
        return f"knows {', '.join(row.architectures)} only"
    return missing(row.needs, settings.python(name))


def prepare(
    work: Path,
    settings: Settings,
    limits: Limits = Limits(),
) -> tuple[dict[str, Path], dict[str, str], list[str]]:
    """The folder of every system that is here; of the others why they are not, or failed; and what is left to do."""
    os.environ |= _environment(work)
    absent = {name: reason for name in settings.names if (reason := _missing(name, settings))}
    folders: dict[str, Path] = {}
    left: list[str] = []
    for name in [name for name in settings.names if name not in absent]:
        if limits.reached(0):
            left.append(f"{name}'s folder")
            continue
        _say(f"{name}: folder")
        try:
            folders[name] = make(
                SYSTEMS[name].folder,
                work,
                work / "log.txt",
                device=settings.device,
                architecture=settings.architecture,
                python=settings.python(name),
            )
        except Failed as error:
            absent[name] = f"its folder cannot be made: {error}"
    if OURS in folders:
        # Hashed before, as it is on every run of a user but the first.
        ModelFolder.open(folders[OURS]).verify()
    for name in [name for name in folders if SYSTEMS[name].compiles]:
        if limits.reached(0) and not _ready(name, work, settings).exists():
            left.append(f"compiling {name}")
            del folders[name]
            continue
        try:
            _compile(name, folders[name], work, settings)
        except Failed as error:
            absent[name] = f"failed while it compiled: {error}"
    return folders, absent, left


def _ready(name: str, work: Path, settings: Settings) -> Path:
    """The mark of what a system has compiled for a size."""
    return work / COMPILED / name / f"{settings.size}.ready"


def _compile(name: str, folder: Path, work: Path, settings: Settings) -> None:
    """Once, apart from the turns: it takes minutes, and none of them is a picture's."""
    mark = _ready(name, work, settings)
    if not mark.exists():
        _say(f"{name}: compiling")
        _turn(name, folder, work, replace(settings, steps=2, generations=1))
        mark.touch()


def _multiplication(work: Path, settings: Settings) -> list[float]:
    try:
        command = [sys.executable, HERE / "peak.py", "--device", settings.device]
        return [run(command, work / "log.txt", timeout=settings.timeout).result["tflops"]]
    except Failed as error:
        _say(f"matrix multiplication: {error}")
        return []


def _turn(name: str, folder: Path, work: Path, settings: Settings) -> dict[str, Any]:
    """One process: its figures, and the thumbnail of what it drew."""
    numbers = {key: getattr(settings, key) for key in ("device", "size", "steps", "generations")}
    options = [part for key, value in numbers.items() for part in (f"--{key}", str(value))]
    command = [settings.python(name), HERE / "peer.py", name, folder, *options, "--began", repr(time.time())]
    ended = _run_turn(name, command, work, settings)
    took = ended.result
    warm = took["generations"]
    steady = {key: statistics.median(generation[key] for generation in warm) for key in warm[0]}
    figures = {key: took[key] for key in ("import", "load", "first_picture", "first_step")}
    figures |= {key: value for key, value in steady.items() if key != "first_step"}
    figures |= {"own": ended.own_bytes, "resident": ended.resident_bytes}
    device_memory = {} if ended.device_bytes is None else {"device": ended.device_bytes}
    steps = {"steps": [generation["step"] for generation in warm]}
    return {**figures, **device_memory, **steps, "thumbnail": took["thumbnail"]}


def _run_turn(name: str, command: Sequence[str | Path], work: Path, settings: Settings) -> Run:
    """A system that compiles has a folder of its own for what it made. One that was killed leaves half a file there."""
    options: dict[str, Any] = {"timeout": settings.timeout, "gpu": settings.device == "cuda"}
    if not SYSTEMS[name].compiles:
        return run(command, work / "log.txt", **options)
    compiled = work / COMPILED / name
    busy = compiled / "busy"
    if busy.exists():
        _say(f"{name}: was killed when it ran last, so what it compiled goes")
        shutil.rmtree(compiled)
    compiled.mkdir(parents=True, exist_ok=True)
    busy.touch()
    try:
        ended = run(
            command, work / "log.txt", environment={"TORCHINDUCTOR_CACHE_DIR": str(compiled)}, **options
        )
    except Killed:
        shutil.rmtree(compiled)
        raise
    except Failed:
        busy.unlink()
        raise
    busy.unlink()
    return ended


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _need_ours(absent: Mapping[str, str]) -> None:
    if OURS in absent:
        raise SystemExit(f"{OURS} itself was not measured: {absent[OURS]}")


def _need_all(left: Sequence[str]) -> None:
    if left:
        raise SystemExit(f"not within the time: {', '.join(left)}; --resume goes on with it")


def _write(figures: Mapping[str, Any], options: argparse.Namespace) -> None:
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if options.report:
        options.report.write_text(report(figures), encoding="utf-8")


def _settings(options: argparse.Namespace) -> Settings:
    known = for_machine(options.device)
    names = tuple(options.systems.split(",")) if options.systems else known
    if unknown := [name for name in names if name not in SYSTEMS]:
        raise SystemExit(f"unknown system {unknown[0]!r}: expected of {', '.join(SYSTEMS)}")
    if options.rounds < 1 or options.steps < 2 or options.generations < 1:
        raise SystemExit(
            "expected at least 1 of --rounds and --generations, and 2 --steps: the first is apart"
        )
    if unpaired := [pair for pair in options.python if "=" not in pair]:
        raise SystemExit(f"--python {unpaired[0]}: expected SYSTEM=PATH")
    pythons = dict(pair.split("=", 1) for pair in options.python)
    if unknown := [name for name in pythons if name not in SYSTEMS]:
        raise SystemExit(f"--python {unknown[0]}=…: unknown system, expected of {', '.join(SYSTEMS)}")
    chosen = {
        key: getattr(options, key) for key in ("device", "architecture", "steps", "generations", "rounds")
    }
    size = options.size or SIZES[options.architecture]
    return Settings(**chosen, size=size, names=names, pythons=pythons, timeout=options.timeout)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, help="a folder per architecture; a temporary one if left out")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--architecture", choices=list(SIZES), default="sd15")
    parser.add_argument("--size", type=int, help="512 for sd15, 64 for tiny")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--generations", type=int, default=2, help="after one that warms up")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--systems", metavar="A,B", help="some of them; all that run on the device if left out"
    )
    parser.add_argument("--python", action="append", default=[], metavar="SYSTEM=PATH")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds that one process may take")
    parser.add_argument(
        "--within", type=float, metavar="SECONDS", help="begin nothing that would end later than this"
    )
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="go on with the turns in --work; without it they are put aside",
    )
    parser.add_argument("--json", type=Path, help="write the record here")
    parser.add_argument("--report", type=Path, help="write the tables here too")
    parser.add_argument(
        "--prepare", action="store_true", help="only make the folders that systems load, in --work"
    )
    parser.add_argument(
        "--list", action="store_true", help="only say which systems are here and which are not"
    )
    return parser.parse_args()


def main() -> None:
    options = _options()
    settings = _settings(options)
    if options.list:
        for name in settings.names:
            print(f"{name}: {_missing(name, settings) or 'here'}")
        return
    with tempfile.TemporaryDirectory() as scratch:
        work = (options.work or Path(scratch)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        limits = Limits(within=options.within)
        if options.prepare:
            _, absent, left = prepare(work, settings, limits)
            print(
                "\n".join(f"not measured: {name}: {reason}" for name, reason in absent.items())
                or "all are here"
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


if __name__ == "__main__":
    main()
