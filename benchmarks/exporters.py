"""The exporters that `python -m benchmarks export` compares, a row for each, and the environment of sdrt 0.1.0."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import worker
from benchmarks.measure import Failed, run

__all__ = ["EXPORTERS", "OURS", "RELEASED", "Environment", "Exporter", "environments"]

OURS, RELEASED = "sdrt", "0.1.0"
COMMIT = "f710566"
"""The commit of sdrt 0.1.0, which traced torch's modules."""
# 0.1.0 was measured with this version. Newer ones may bring several GB of CUDA.
_TORCH = "torch==2.13.0"


@dataclass(frozen=True, kw_only=True)
class Exporter:
    """One way to export.

    Attributes:
        about: a description, for the results.
        arguments: makes the arguments after the interpreter, from a source and the folder to write.
        sources: the kinds of source that it takes.
    """

    about: str
    arguments: Callable[[Path, Path], list[str | Path]]
    sources: tuple[str, ...] = ("folder",)


def _sdrt(source: Path, output: Path) -> list[str | Path]:
    return ["-m", "sdrt", "export", source, "-o", output, "--target", "cpu"]


def _optimum(source: Path, output: Path) -> list[str | Path]:
    module = "optimum.commands.optimum_cli"
    return ["-m", module, "export", "onnx", "--model", source, "--task", "text-to-image", output]


EXPORTERS: Mapping[str, Exporter] = {
    OURS: Exporter(about="this checkout", arguments=_sdrt, sources=("folder", "single")),
    RELEASED: Exporter(about="0.1.0, which compares every component with torch", arguments=_sdrt),
    "optimum": Exporter(about="optimum's command line, which validates its output", arguments=_optimum),
}


@dataclass(frozen=True, kw_only=True)
class Environment:
    """An interpreter, and the variables that it runs with."""

    python: str = sys.executable
    variables: Mapping[str, str] = field(default_factory=worker.environment)


def environments(
    names: tuple[str, ...], work: Path, log: Path, *, baseline: Path | None, pythons: Mapping[str, str]
) -> dict[str, Environment]:
    """The environment of each exporter.

    Args:
        names: rows of `EXPORTERS`.
        work: where a checkout of 0.1.0 and its environment are made, where none is given.
        log: where the commands that make them write.
        baseline: a checkout of 0.1.0.
        pythons: interpreters by name.

    Raises:
        Failed: 0.1.0 cannot be checked out or installed.
    """
    made = {}
    for name in names:
        variables = worker.environment()
        if name == RELEASED:
            folder = baseline or _checked_out(work / RELEASED, log)
            variables = {"PYTHONPATH": os.pathsep.join(str(folder / part) for part in _packages(folder))}
            python = pythons.get(name) or _installed(folder, work / f"{RELEASED}-venv", log)
        else:
            python = pythons.get(name, sys.executable)
        made[name] = Environment(python=python, variables=variables)
    return made


def _packages(folder: Path) -> list[str]:
    found = [part for part in ("runtime", "export", "models") if (folder / part).is_dir()]
    if not found:
        raise Failed(f"{folder} is no checkout of sdrt {RELEASED}: expected commit {COMMIT}")
    return found


def _checked_out(folder: Path, log: Path) -> Path:
    if not folder.is_dir():
        run(["git", "-C", worker.ROOT, "worktree", "add", "--detach", folder, COMMIT], log)
    return folder


def _installed(folder: Path, place: Path, log: Path) -> str:
    python = place / "bin" / "python"
    if not (place / "ready").is_file():
        run([sys.executable, "-m", "venv", "--clear", place], log)
        run([python, "-m", "pip", "install", "--quiet", _TORCH, f"{folder}[cpu,export]"], log)
        # The checkout comes first on the path, and pip's copy of it is not measured.
        subprocess.run([python, "-m", "pip", "uninstall", "--quiet", "--yes", "sdrt"], check=True)
        (place / "ready").touch()
    return str(python)
