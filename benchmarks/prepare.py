"""This module prepares the turns: the folders that systems load, and the code that they compile."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from benchmarks.folders import make
from benchmarks.measure import Failed
from benchmarks.requirements import missing, no_compiler, no_library
from benchmarks.settings import Limits, Settings, say
from benchmarks.system_process import COMPILED, take_turn
from benchmarks.systems import OURS, SYSTEMS
from benchmarks.worker import environment
from sdrt.model_folder.folder import ModelFolder

__all__ = ["prepare", "why_missing"]


def _environment(work: Path) -> dict[str, str]:
    """The environment of processes: they measure this checkout, download nothing, and keep their caches in `work`."""
    return {
        **environment(),
        "HF_HUB_OFFLINE": "1",
        "SDRT_CACHE": str(work / "cache"),
    }


def why_missing(name: str, settings: Settings) -> str | None:
    """Why a system cannot run here; None if it can."""
    row = SYSTEMS[name]
    if settings.device not in row.devices:
        return f"does not run on {settings.device}"
    if row.architectures and settings.architecture not in row.architectures:
        return f"supports only {', '.join(row.architectures)}"
    python = settings.python(name)
    found = missing(row.needs, python)
    if found is None and row.library:
        found = no_library(row.library, python)
    return found or (no_compiler(python) if row.compiles else None)


def prepare(
    work: Path,
    settings: Settings,
    limits: Limits | None = None,
) -> tuple[dict[str, Path], dict[str, str], list[str]]:
    """The folders of the available systems, the reasons why others are absent, and what there was no time for."""
    limits = limits or Limits()
    os.environ |= _environment(work)
    absent = {name: reason for name in settings.names if (reason := why_missing(name, settings))}
    folders: dict[str, Path] = {}
    left: list[str] = []
    for name in [name for name in settings.names if name not in absent]:
        if limits.reached(0):
            left.append(f"{name}'s folder")
            continue
        say(f"{name}: folder")
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
        # Hash the files now, because a user pays for this only in the first run.
        ModelFolder.open(folders[OURS]).verify()
    for name in [name for name in folders if SYSTEMS[name].compiles]:
        if limits.reached(0) and not _ready(name, work, settings).exists():
            left.append(f"compiling {name}")
            del folders[name]
            continue
        try:
            _compile(name, folders[name], work, settings)
        except Failed as error:
            absent[name] = f"failed while compiling: {error}"
    return folders, absent, left


def _ready(name: str, work: Path, settings: Settings) -> Path:
    """The file that marks a system as compiled for a size."""
    return work / COMPILED / name / f"{settings.size}.ready"


def _compile(name: str, folder: Path, work: Path, settings: Settings) -> None:
    """Compile once, before the turns: it takes minutes, which belong to no image."""
    mark = _ready(name, work, settings)
    if not mark.exists():
        say(f"{name}: compiling")
        take_turn(name, folder, work, replace(settings, steps=2, generations=1))
        mark.touch()
