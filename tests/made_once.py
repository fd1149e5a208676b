"""The type of the fixture `made_once`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

MadeOnce = Callable[[str, Callable[[Path], object]], Path]
"""`made_once(name, make)`: the folder that `make(folder)` writes, once for all processes that test. Only to read."""
