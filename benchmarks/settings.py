"""What is compared, how often, and within which time."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.systems import OURS, SYSTEMS

__all__ = ["REPEATS", "Limits", "Settings", "add_systems", "chosen_systems", "interpreters", "say"]

REPEATS: Mapping[str, Mapping[str, int]] = {
    "cpu": {"steps": 3, "generations": 2, "rounds": 3},
    # A step takes milliseconds there, and starting a process most of a turn.
    "cuda": {"steps": 20, "generations": 5, "rounds": 3},
}
"""By device how many steps a picture has, how many are made after one that warms up, and how many turns are taken."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured, and how often. `pythons`: the interpreters of systems that have one of their own."""

    device: str = "cpu"
    architecture: str = "sd15"
    size: int = 512
    steps: int = 3
    generations: int = 2
    rounds: int = 3
    names: tuple[str, ...] = (OURS,)
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


def add_systems(parser: argparse.ArgumentParser, which: str) -> None:
    """The options `--systems` and `--python`; `which` says what the first one chooses."""
    parser.add_argument("--systems", metavar="A,B", help=which)
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="SYSTEM=PATH",
        help="of a system in an environment of its own",
    )


def chosen_systems(text: str | None, usual: tuple[str, ...]) -> tuple[str, ...]:
    """What `--systems` names, or the `usual` ones; ends the program for a name that no system has."""
    names = tuple(text.split(",")) if text else usual
    if unknown := [name for name in names if name not in SYSTEMS]:
        raise SystemExit(f"unknown system {unknown[0]!r}: expected of {', '.join(SYSTEMS)}")
    return names


def interpreters(pairs: Sequence[str]) -> dict[str, str]:
    """What `--python` says, by system; ends the program for what is no pair."""
    if unpaired := [pair for pair in pairs if "=" not in pair]:
        raise SystemExit(f"--python {unpaired[0]}: expected SYSTEM=PATH")
    pythons = dict(pair.split("=", 1) for pair in pairs)
    if unknown := [name for name in pythons if name not in SYSTEMS]:
        raise SystemExit(f"--python {unknown[0]}=…: unknown system, expected of {', '.join(SYSTEMS)}")
    return pythons


def say(text: str) -> None:
    """A line for who waits."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
