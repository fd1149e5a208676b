"""sdrt beside its peers in one go: the same weights, the same work, a process each, in turns. Prints ratios and bars.

    python benchmarks/peers.py --work DIR [--device cpu|cuda] [--architecture sd15] [--size 512] [--rounds 3]

The systems are the rows of `systems.py`; those that this machine lacks are listed with the reason. DIR keeps the
checkpoint of random weights and what every system made of it. `--python NAME=PATH` runs a system in the interpreter
of another environment, for those that do not bear one another. A machine that slows down slows all that take turns:
ratios are taken within a round.
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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bars import judge
from figures import differences, ratios, reached, spreads
from folders import make
from measure import Failed, device, run
from presence import missing, versions
from systems import OURS, SYSTEMS, for_machine
from tables import report

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


def compare(
    work: Path, settings: Settings, keep: Callable[[dict[str, Any]], None] = lambda _: None
) -> dict[str, Any]:
    """Prepare, take turns, and give the record; `keep` gets it after every round, in case there is no next one."""
    folders, absent = prepare(work, settings)
    peaks: list[float] = []
    turns: list[dict[str, Any]] = []
    record: dict[str, Any] = {}
    for number in range(settings.rounds):
        peaks += _multiplication(work, settings)
        turns.append(_round(number, work, settings, folders, absent))
        record = _record(settings, absent, peaks, turns)
        keep(record)
    return record


def _record(
    settings: Settings, absent: Mapping[str, str], peaks: Sequence[float], turns: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Figures with their spread, ratios to sdrt, bars, what is missing."""
    return {
        "settings": asdict(settings),
        "device": device(),
        "versions": versions(settings.python(OURS)),
        "missing": dict(absent),
        "systems": spreads(turns),
        "ratios_to_sdrt": spreads([ratios(turn) for turn in turns]),
        "pictures_differ_by": differences(turns),
        "peak": reached(settings.architecture, settings.size, peaks, turns),
        "bars": [bar for name in _ours(settings) for bar in judge(settings.device, name, turns)],
        "turns": list(turns),
    }


def _environment(work: Path) -> dict[str, str]:
    """This checkout is what is measured, whatever is installed; nothing is downloaded; caches are the run's own."""
    ours = [str(HERE.parent / folder) for folder in ("runtime", "export", "models")]
    return {
        "PYTHONPATH": os.pathsep.join([*ours, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "HF_HUB_OFFLINE": "1",
        "SDRT_CACHE": str(work / "cache"),
        "TORCHINDUCTOR_CACHE_DIR": str(work / COMPILED),
    }


def _ours(settings: Settings) -> list[str]:
    return [name for name in settings.names if SYSTEMS[name].folder == "sdrt"]


def _missing(name: str, settings: Settings) -> str | None:
    row = SYSTEMS[name]
    if settings.device not in row.devices:
        return f"does not run on {settings.device} here"
    if row.architectures and settings.architecture not in row.architectures:
        return f"knows {', '.join(row.architectures)} only"
    return missing(row.needs, settings.python(name))


def prepare(work: Path, settings: Settings) -> tuple[dict[str, Path], dict[str, str]]:
    """The folder of every system that is here; and of the others why they are not, or why theirs cannot be made."""
    os.environ |= _environment(work)
    absent = {name: reason for name in settings.names if (reason := _missing(name, settings))}
    folders: dict[str, Path] = {}
    for name in [name for name in settings.names if name not in absent]:
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
    return folders, absent


def _round(
    number: int, work: Path, settings: Settings, folders: Mapping[str, Path], absent: dict[str, str]
) -> dict[str, Any]:
    """A turn of every system; one that fails is `absent` from then on."""
    # Another begins in every round, so that none always follows the same one.
    first = number % max(len(folders), 1)
    turns: dict[str, Any] = {}
    for name in [name for name in [*folders][first:] + [*folders][:first] if name not in absent]:
        _say(f"round {number + 1} of {settings.rounds}: {name}")
        try:
            turns[name] = _turn(name, folders[name], work, settings)
        except Failed as error:
            absent[name] = f"failed in round {number + 1}: {error}"
            shutil.rmtree(
                work / COMPILED, ignore_errors=True
            )  # a compiler that was killed leaves half a file
    return turns


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
    ended = run(command, work / "log.txt", timeout=settings.timeout, gpu=settings.device == "cuda")
    took = ended.result
    warm = took["generations"]
    steady = {key: statistics.median(generation[key] for generation in warm) for key in warm[0]}
    figures = {key: took[key] for key in ("import", "load", "first_picture", "first_step")}
    figures |= {key: value for key, value in steady.items() if key != "first_step"}
    figures |= {"own": ended.own_bytes, "resident": ended.resident_bytes}
    device_memory = {} if ended.device_bytes is None else {"device": ended.device_bytes}
    steps = {"steps": [generation["step"] for generation in warm]}
    return {**figures, **device_memory, **steps, "thumbnail": took["thumbnail"]}


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _need_ours(absent: Mapping[str, str]) -> None:
    if OURS in absent:
        raise SystemExit(f"{OURS} itself was not measured: {absent[OURS]}")


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
        if options.prepare:
            absent = prepare(work, settings)[1]
            print(
                "\n".join(f"not measured: {name}: {reason}" for name, reason in absent.items())
                or "all are here"
            )
            _need_ours(absent)
            return
        figures = compare(work, settings, lambda record: _write(record, options))
        print(report(figures))
        _need_ours(figures["missing"])


if __name__ == "__main__":
    main()
