"""Modules of this package in processes of their own, also by interpreters of environments without sdrt.

A worker needs no installation. It gets this checkout through PYTHONPATH, and imports no more of the package than its
system needs.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["ROOT", "command", "environment"]

ROOT = Path(__file__).parent.parent


def command(python: str, module: str) -> list[str | Path]:
    """How `python` runs `benchmarks.MODULE`; its environment must have what `environment` gives."""
    return [python, "-m", f"benchmarks.{module}"]


def environment() -> dict[str, str]:
    """PYTHONPATH with this checkout first: the worker measures it, whatever is installed."""
    ours = [str(ROOT / folder) for folder in ("", "runtime", "export", "models")]
    return {"PYTHONPATH": os.pathsep.join([*ours, *filter(None, [os.environ.get("PYTHONPATH")])])}
