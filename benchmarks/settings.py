"""The settings of a comparison: systems, repetitions and time limits."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.systems import OURS, SYSTEMS

__all__ = ["REPEATS", "Limits", "Settings", "add_systems", "chosen_systems", "interpreters", "say"]

REPEATS: Mapping[str, Mapping[str, int]] = {
    "cpu": {"steps": 3, "generations": 2, "rounds": 3},
    # A step takes milliseconds there, and most of a turn is starting a process.
    "cuda": {"steps": 20, "generations": 5, "rounds": 3},
}
"""Device → steps of an image, generations after the one that warms up, and rounds."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What to measure, and how often. `pythons` maps systems to their own interpreters. `timeout` is in seconds."""

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
    """When to stop: `within` seconds after `began` (from `time.monotonic()`), never if None."""

    within: float | None = None
    began: float = field(default_factory=time.monotonic)

    def reached(self, expected: float) -> bool:
        """Whether work of `expected` seconds would end too late."""
        return self.within is not None and time.monotonic() - self.began + expected > self.within


def add_systems(parser: argparse.ArgumentParser, which: str) -> None:
    """Add the options `--systems` and `--python`. `which` is the help of `--systems`."""
    parser.add_argument("--systems", metavar="A,B", help=which)
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="SYSTEM=PATH",
        help="the interpreter of a system that has its own environment",
    )


def chosen_systems(text: str | None, usual: tuple[str, ...]) -> tuple[str, ...]:
    """The systems in `--systems`, or the `usual` ones. Exits for an unknown name."""
    names = tuple(text.split(",")) if text else usual
    if unknown := [name for name in names if name not in SYSTEMS]:
        raise SystemExit(f"unknown system {unknown[0]!r}: choose from {', '.join(SYSTEMS)}")
    return names


def interpreters(pairs: Sequence[str], known: Collection[str] = SYSTEMS) -> dict[str, str]:
    """System → interpreter, from `--python`. Exits for a value that is not a pair, or for no `known` system."""
    if unpaired := [pair for pair in pairs if "=" not in pair]:
        raise SystemExit(f"--python {unpaired[0]}: expected SYSTEM=PATH")
    pythons = dict(pair.split("=", 1) for pair in pairs)
    if unknown := [name for name in pythons if name not in known]:
        raise SystemExit(f"--python {unknown[0]}=…: unknown system, choose from {', '.join(known)}")
    return pythons


def say(text: str) -> None:
    """Print a line of progress to stderr."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
