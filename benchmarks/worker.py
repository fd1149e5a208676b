"""Runs modules of this package in other processes, also with interpreters of environments without sdrt.

A worker needs no installation. It gets this checkout through PYTHONPATH, and imports only the modules that its system
needs.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["ROOT", "command", "environment"]

ROOT = Path(__file__).parent.parent


def command(python: str, module: str) -> list[str | Path]:
    """The command with which `python` runs `benchmarks.MODULE`. It needs the variables of `environment`."""
    return [python, "-m", f"benchmarks.{module}"]


def environment() -> dict[str, str]:
    """PYTHONPATH with this checkout first, so that the worker measures it and not an installed sdrt."""
    ours = [str(ROOT / folder) for folder in ("", "runtime", "export", "models")]
    return {"PYTHONPATH": os.pathsep.join([*ours, *filter(None, [os.environ.get("PYTHONPATH")])])}
