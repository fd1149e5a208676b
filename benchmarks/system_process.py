"""This module runs one system in its own process, which is a turn, and collects its figures."""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import worker
from benchmarks.measure import Failed, Killed, Run, run
from benchmarks.settings import Settings, say
from benchmarks.systems import SYSTEMS

__all__ = ["COMPILED", "multiplication", "run_turn", "take_turn"]

COMPILED = "inductor"
"""The folder for the code that systems compile."""


def multiplication(work: Path, settings: Settings) -> list[float]:
    """The current TFLOP/s of matrix multiplication on the device, in a list; empty if that fails."""
    try:
        command = [*worker.command(sys.executable, "peak"), "--device", settings.device]
        return [run(command, work / "log.txt", timeout=settings.timeout).result["tflops"]]
    except Failed as error:
        say(f"matrix multiplication: {error}")
        return []


def take_turn(name: str, folder: Path, work: Path, settings: Settings) -> dict[str, Any]:
    """Run one process. Returns its figures and the thumbnail of its image."""
    numbers = {key: getattr(settings, key) for key in ("device", "size", "steps", "generations")}
    options = [part for key, value in numbers.items() for part in (f"--{key}", str(value))]
    command = worker.command(settings.python(name), "peer")
    command += [name, folder, *options, "--began", repr(time.time())]
    ended = run_turn(name, command, work, settings)
    took = ended.result
    warm = took["generations"]
    steady = {key: statistics.median(generation[key] for generation in warm) for key in warm[0]}
    figures = {key: took[key] for key in ("import", "load", "first_picture", "first_step")}
    figures |= {key: value for key, value in steady.items() if key != "first_step"}
    figures |= {"own": ended.own_bytes, "resident": ended.resident_bytes}
    device_memory = {} if ended.device_bytes is None else {"device": ended.device_bytes}
    steps = {"steps": [generation["step"] for generation in warm]}
    return {**figures, **device_memory, **steps, "thumbnail": took["thumbnail"]}


def run_turn(name: str, command: Sequence[str | Path], work: Path, settings: Settings) -> Run:
    """Run the process of a turn. A system that compiles has its own folder, which goes if the system is killed."""
    options: dict[str, Any] = {"timeout": settings.timeout, "gpu": settings.device == "cuda"}
    if not SYSTEMS[name].compiles:
        return run(command, work / "log.txt", **options)
    compiled = work / COMPILED / name
    busy = compiled / "busy"
    if busy.exists():
        say(f"{name}: was killed in its last run, so its compiled code is deleted")
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
