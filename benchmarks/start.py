"""This command compares how soon the first image is there, and how much memory it takes: tuned, untuned, in 0.1.0.

    python -m benchmarks start [--work DIR] [--rounds 3] [--until first-step] [--side 64] [--steps 1]

All start from the same random weights. A turn is one `sdrt generate` of one image on the CPU. The systems are 0.1.0's
exported folder with 0.1.0, and with this checkout the exported folder (float32) and one file in float16, both untuned
and tuned (`sdrt tune`). Time and memory are those of the whole process. A small image with one step shows the time to
load. For a whole image, use `--side 512 --steps 20` and `--systems 0.1.0,exported-tuned,balanced,fast`; the last two
are tuned, and run with `--accelerate`. With `--until first-step`, a turn is a program that opens the model and ends
after the first step, so the VAE has no part in it. `--systems 0.1.0,exported-tuned,diffusers` adds diffusers, which
loads the checkpoint that the folders were made from, always in a program. Before each turn, the files are in the page
cache, and Python has compiled the modules. Every round begins with another system; ratios are taken within a round.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import in_turn, worker
from benchmarks.bars import judge_start
from benchmarks.command_line import conclude, parser_of
from benchmarks.exporters import EXPORTERS, RELEASED, Environment, environments
from benchmarks.folders import checkpoint, make, single_file
from benchmarks.measure import device, make_ready, run
from benchmarks.one_image import FIRST_STEP, IMAGE, PROMPT
from benchmarks.settings import say

__all__ = ["SYSTEMS", "compare", "main", "table"]

EXPORTED, SINGLE, TUNED, SINGLE_TUNED = "exported", "single", "exported-tuned", "single-tuned"
DIFFUSERS = "diffusers"
ACCELERATED = ("balanced", "fast")
_DEFAULT = (RELEASED, EXPORTED, TUNED, SINGLE, SINGLE_TUNED)
SYSTEMS = (*_DEFAULT, *ACCELERATED, DIFFUSERS)
_UNTUNED = "--no-tune"
_SCRIPT = Path(__file__).with_name("one_image.py")
FIGURES = {
    "cpu_seconds": "CPU time",
    "seconds": "time",
    "own_bytes": "own memory at its peak",
    "resident_bytes": "with mapped files",
}


@dataclass(frozen=True, kw_only=True)
class _System:
    """What one system loads, in which environment, and the files that it reads."""

    model: Path
    environment: Environment
    options: tuple[str, ...]
    files: Sequence[Path]


def compare(work: Path, options: Any) -> dict[str, Any]:
    """Run the systems in turn. Their models stay in `work`."""
    log, names = work / "log.txt", options.systems.split(",")
    systems = {name: _system(name, work, log, options) for name in names}
    for name in names:  # these first runs check the hashes
        _turn(name, systems[name], work, log, options)
    turns: list[dict[str, dict[str, float]]] = []
    for number in range(options.rounds):
        order = [*names[number % len(names) :], *names[: number % len(names)]]
        turns.append({name: _turn(name, systems[name], work, log, options) for name in order})
    return _record(options, names, turns)


def _variables(work: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """The variables of a turn. Python keeps compiled modules, as an installed package has them."""
    kept = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": os.fspath(work / "pycache")}
    return {**variables, **kept, "SDRT_CACHE": os.fspath(work / "cache")}


def _system(name: str, work: Path, log: Path, options: Any) -> _System:
    if name == RELEASED:
        return _released(work, log, options)
    if name == DIFFUSERS:
        model = checkpoint(work, log, options.architecture)
        # pip has compiled its modules, and those of torch.
        return _System(model=model, environment=Environment(), options=(), files=_files(model))
    here = Environment(variables=_variables(work, worker.environment()))
    if name in (SINGLE, SINGLE_TUNED):
        model = single_file(work, log, options.architecture)
    else:
        model = make(
            "sdrt", work, log, device="cpu", architecture=options.architecture, python=sys.executable
        )
    if name in (EXPORTED, SINGLE):
        return _System(model=model, environment=here, options=(_UNTUNED,), files=_files(model))
    run([here.python, "-m", "sdrt", "tune", "-m", model], log, environment=here.variables)
    faster = ("--accelerate", name) if name in ACCELERATED else ()
    return _System(model=model, environment=here, options=faster, files=_files(work / "cache" / "compiled"))


def _released(work: Path, log: Path, options: Any) -> _System:
    pythons = {RELEASED: options.python} if options.python else {}
    place = environments((RELEASED,), work, log, baseline=options.baseline, pythons=pythons)[RELEASED]
    place = Environment(python=place.python, variables=_variables(work, place.variables))
    model = work / "exported" / RELEASED
    if not (model / "sdrt.json").is_file():
        source = checkpoint(work, log, options.architecture)
        command = EXPORTERS[RELEASED].arguments(source, model)
        run([place.python, *command], log, environment=place.variables)
    return _System(model=model, environment=place, options=(), files=_files(model))


def _files(model: Path) -> list[Path]:
    return [model] if model.is_file() else [path for path in model.rglob("*") if path.is_file()]


def _turn(name: str, system: _System, work: Path, log: Path, options: Any) -> dict[str, float]:
    make_ready(system.files)
    command = (
        _script(name, system, options) if _by_script(name, options) else _generate(system, work, options)
    )
    done = run([system.environment.python, *command], log, environment=system.environment.variables)
    say(f"{name}: {done.cpu_seconds:.1f} s of CPU time, {done.seconds:.1f} s, {done.own_bytes / 1e9:.2f} GB")
    return {key: getattr(done, key) for key in FIGURES}


def _by_script(name: str, options: Any) -> bool:
    return name == DIFFUSERS or options.until == FIRST_STEP


def _script(name: str, system: _System, options: Any) -> list[str | Path]:
    kind = name if name == DIFFUSERS else "sdrt-untuned" if _UNTUNED in system.options else "sdrt"
    return [_SCRIPT, kind, system.model, str(options.side), str(options.steps), options.until]


def _generate(system: _System, work: Path, options: Any) -> list[str | Path]:
    side, steps = str(options.side), str(options.steps)
    return [
        *("-m", "sdrt", "generate", PROMPT, "-m", system.model, "--provider", "cpu", "--seed", "0"),
        *("-W", side, "-H", side, "--steps", steps, "-o", work / "image.png", "--force", "--quiet"),
        *system.options,
    ]


def _record(
    options: Any, names: Sequence[str], turns: Sequence[Mapping[str, Mapping[str, float]]]
) -> dict[str, Any]:
    first = names[0]
    return {
        "architecture": f"{options.architecture}, random weights",
        "image": f"{options.side}x{options.side}, {options.steps} steps",
        "until": options.until,
        "rounds": len(turns),
        "turns": list(turns),
        "systems": in_turn.spreads(turns, tuple(FIGURES)),
        f"ratios_to_{first}": in_turn.ratios(turns, tuple(FIGURES), first),
        "bars": judge_start(turns, whole=(options.side, options.steps) if options.until == IMAGE else None),
        "device": device(),
    }


def table(figures: Mapping[str, Any]) -> str:
    """Medians, in brackets the ratio to the first system with its spread; then the goals."""
    first = next(iter(figures["systems"]))
    title = f"{figures['architecture']}, {figures['image']}, until the {figures['until'].replace('-', ' ')}"
    return in_turn.table(figures, title, FIGURES, first, of=f"ratios_to_{first}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of("start", __doc__)
    parser.add_argument(
        "--work", type=Path, help="keep the models here (about 25 GB); default: a temporary folder"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--architecture", default="sd15", help="default: sd15")
    parser.add_argument(
        "--systems", default=",".join(_DEFAULT), help="default: %(default)s; also: balanced, fast, diffusers"
    )
    parser.add_argument(
        "--until", choices=(IMAGE, FIRST_STEP), default=IMAGE, help="what ends a turn; default: %(default)s"
    )
    parser.add_argument("--side", type=int, default=64, help="of the image, in pixels; default: %(default)s")
    parser.add_argument("--steps", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--baseline", type=Path, help="a checkout of 0.1.0; default: one is made")
    parser.add_argument("--python", help="the interpreter of 0.1.0; default: an environment is made")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.systems.split(",") if name not in SYSTEMS]:
        raise SystemExit(f"unknown system {unknown[0]!r}: choose from {', '.join(SYSTEMS)}")
    if options.until == FIRST_STEP and (
        whole := [one for one in options.systems.split(",") if one in ACCELERATED]
    ):
        raise SystemExit(f"{whole[0]} leaves out later steps only: measure it with --until {IMAGE}")
    conclude(options, lambda work: compare(work, options), table)
