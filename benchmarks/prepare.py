"""This module makes what turns need: the folders that systems load, and what they compile."""

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
    """Processes measure this checkout, download nothing, and keep their caches in `work`."""
    return {
        **environment(),
        "HF_HUB_OFFLINE": "1",
        "SDRT_CACHE": str(work / "cache"),
    }


def why_missing(name: str, settings: Settings) -> str | None:
    """Why a system cannot run here; None if it can."""
    row = SYSTEMS[name]
    if settings.device not in row.devices:
        return f"does not run on {settings.device} here"
    if row.architectures and settings.architecture not in row.architectures:
        return f"knows {', '.join(row.architectures)} only"
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
    """The folder of every system that is here; of the others why they are not, or failed; and what is left to do."""
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
        say(f"{name}: compiling")
        take_turn(name, folder, work, replace(settings, steps=2, generations=1))
        mark.touch()
